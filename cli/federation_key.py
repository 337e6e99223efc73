"""`collab pki federation-key`: the key that parties blind their claims under; made, shared and exchanged by them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from collabedit.cli.output import say
from collabedit.cli.pki_options import SETTINGS, json_option, state_option, stated
from collabedit.cli.remote import PATIENCE, RemoteOptions, open_connection
from collabedit.common.command import load_settings, options_of, print_json
from collabedit.common.errors import BadFileError, IdentityError, MismatchError, UsageError

if TYPE_CHECKING:
    from collabedit.client.federation_key import HeldKey
    from collabedit.common.credentials import Credentials

Function = TypeVar("Function", bound=Callable[..., Any])

LARGEST = 1 << 20  # bytes of a file that somebody sent


def _key_option(function: Function) -> Function:
    said = "The key's file.  [default: federation.key in the state folder]"
    return click.option("--key", "file", type=click.Path(path_type=Path), help=said)(function)


@click.group("federation-key", context_settings=SETTINGS)
def federation_key() -> None:
    """The key that parties blind their claims under; the server must never have it.

    One party makes it and seals it for each other one, to the certificate in that party's credentials folder
    (client.pem, which is no secret). docs/how-to/settle-conflicts.md has the steps.

    \b
    Example, at one party:
      collab pki federation-key make
      collab pki federation-key seal --for bob.pem --out key-for-bob.json
    At each other one:
      collab pki federation-key open key-for-bob.json
    """


@federation_key.command(short_help="Make the federation's first key, at one party.", context_settings=SETTINGS)
@click.option("--out", type=click.Path(path_type=Path), help="Another file than federation.key in the state folder.")
@state_option("client")
@json_option
def make(out: Path | None, state: Path, as_json: bool) -> None:
    """Make the federation's first key on this host; at one party only. Refuses a host that has one.

    In a federation without certificates (--insecure) the file itself goes to the other parties, by a way that the
    server's operator cannot read; it is then each client's --federation-key, or federation.key in its state folder.

    \b
    Examples:
      collab pki federation-key make
      collab pki federation-key make --out federation.key
    """
    from collabedit.client.federation_key import make as make_key

    place, federation = _partys(_file(state, out)), _federation(state)
    if not federation and out is None:
        raise IdentityError(
            f"{state}: not enrolled with a federation, whose key it would be",
            mend="enrol first; in a federation without certificates say with --out where the key is to go",
        )
    held = make_key(place, federation)
    _tell(held, as_json, "made")
    seal_it = f"collab pki federation-key seal --for THEIR-client.pem --out SEALED.json{stated(state)}"
    say(f"next, for each other party: {seal_it}")


@federation_key.command(short_help="Which key this host has.", context_settings=SETTINGS)
@state_option("client")
@_key_option
@json_option
def show(state: Path, file: Path | None, as_json: bool) -> None:
    """Which key this host has: its epoch, and its check, which is equal at all parties and does not tell the key.

    \b
    Example:
      collab pki federation-key show
    """
    from collabedit.client.federation_key import demand

    _tell(demand(_file(state, file)), as_json, "")


@federation_key.command(short_help="Make the next key, at one party.", context_settings=SETTINGS)
@state_option("client")
@_key_option
@json_option
def rotate(state: Path, file: Path | None, as_json: bool) -> None:
    """Make the key of the next epoch on this host, in place of the one that is there; at one party only.

    Then seal it for the others, let an admin announce its check, and restart the clients. Nothing is merged from a
    client that has the old one.

    \b
    Example:
      collab pki federation-key rotate
    """
    from collabedit.client.federation_key import rotate as rotate_key

    held = rotate_key(_file(state, file))
    _tell(held, as_json, "made")
    say(f"next: seal it for the other parties; an admin runs collab pki federation-key announce {held.key.check}")


@federation_key.command(short_help="Encrypt the key for another party.", context_settings=SETTINGS)
@click.option("--for", "certificate", required=True, type=click.Path(path_type=Path), help="Their client.pem.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The sealed file, to be sent to them.")
@state_option("client")
@_key_option
@json_option
def seal(certificate: Path, out: Path, state: Path, file: Path | None, as_json: bool) -> None:
    """Encrypt the key for another party of the federation; only the host with that party's private key can open it.

    --for is the file client.pem of the other party's credentials folder. The federation's CA must have signed it. Who
    has the CA's key could make one in the other's name: compare the fingerprint that is printed with what `collab pki
    show` prints at the other party, by a way that does not pass the server.

    \b
    Example:
      collab pki federation-key seal --for bob.pem --out key-for-bob.json
    """
    from datetime import UTC, datetime

    from collabedit.client.federation_key import demand
    from collabedit.client.sealed_key import seal as seal_key
    from collabedit.common.files import write_durably

    held = demand(_file(state, file))
    own = _credentials(state)
    with _naming(certificate):
        sealed, recipient = seal_key(held, _read(certificate), own, datetime.now(UTC))
    write_durably(out, sealed)
    if as_json:
        print_json({"for": recipient.client_id, "fingerprint": recipient.fingerprint, "file": str(out)} | _shown(held))
        return
    click.echo(f"{out}: key {held.key.check}, for {recipient.client_id}, whose key is {recipient.fingerprint}")


@federation_key.command("open", short_help="Take the key that another party has sealed.", context_settings=SETTINGS)
@click.argument("sealed", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Also an older key than this host has, or another of the same epoch.")
@state_option("client")
@_key_option
@json_option
def open_(sealed: Path, force: bool, state: Path, file: Path | None, as_json: bool) -> None:
    """Decrypt a key that another party has sealed for this host, and keep it. Safe to repeat.

    Refused: a file that was changed, is for somebody else or another federation, or has an older key.

    \b
    Example:
      collab pki federation-key open key-for-bob.json
    """
    from collabedit.client.federation_key import accept
    from collabedit.client.sealed_key import unseal

    place, own = _partys(_file(state, file)), _credentials(state)
    with _naming(sealed):
        held, sender = unseal(_read(sealed), own)
    accept(place, held, force=force)
    if as_json:
        print_json({"from": sender.client_id, "fingerprint": sender.fingerprint} | _shown(held))
        return
    click.echo(f"key {held.key.check}, from {sender.client_id}, whose key is {sender.fingerprint}")
    say("a client that runs takes it when it is started again")


@federation_key.command(short_help="Tell the server which key counts; for admins.", context_settings=SETTINGS)
@click.argument("check")
@options_of(RemoteOptions)
@json_option
def announce(check: str, as_json: bool, **flags: Any) -> None:
    """Tell the server which key counts from now on, by the CHECK that a party tells; an admin's call.

    Needed after `rotate`: before that the first key that the server has heard of counts. The key stays with the
    parties. Clients that have another one are refused until they have opened this one and were started again.

    \b
    Example:
      collab pki federation-key announce 2:90b1c4…
    """
    from collabedit.v1 import federation_pb2 as pb
    from collabedit.v1 import federation_pb2_grpc as rpc

    with open_connection(load_settings(RemoteOptions, flags)) as connection:
        stub = rpc.OperationsStub(connection.channel)
        reply = connection.call(stub.SetKeyCheck, pb.SetKeyCheckRequest(key_check=check), patience=PATIENCE)
    if as_json:
        print_json({"check": reply.key_check})
    else:
        click.echo(f"the key {reply.key_check} counts")


def _file(state: Path, file: Path | None) -> Path:
    from collabedit.client.federation_key import KEY_FILE

    return file or state / KEY_FILE


def _partys(file: Path) -> Path:
    """The file. Raises UsageError where it would lie in a server's state folder."""
    from collabedit.common.credentials import CA_FILE

    folder = file.parent
    if (folder / "pki" / CA_FILE).is_file() or (folder / "rounds.sqlite").is_file():
        raise UsageError(
            f"{folder}: a server's state folder, and the server must never have the federation key",
            mend="run it on a party's host, with that party's --state",
        )
    return file


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Puts the file's name before what is wrong with its content."""
    try:
        yield
    except (BadFileError, IdentityError, MismatchError) as error:
        raise type(error)(f"{file}: {error.what}", mend=error.mend) from error


def _credentials(state: Path) -> Credentials:
    from collabedit.client.connection import credentials_folder
    from collabedit.common.credentials import Credentials

    return Credentials.load(credentials_folder(state))


def _federation(state: Path) -> str:
    """The fingerprint of the CA that this host has enrolled with as a client; "" where it has not enrolled.

    Raises IdentityError for an admin or observer.
    """
    from collabedit.client.connection import credentials_folder
    from collabedit.common.credentials import CERTIFICATE_FILE
    from collabedit.common.pki import ca_fingerprint, identity_of, load_certificate

    if not (credentials_folder(state) / CERTIFICATE_FILE).exists():
        return ""
    own = _credentials(state)
    who, role = identity_of(load_certificate(own.certificate_pem))
    if role != "client":
        raise IdentityError(
            f"{who} is {role} of the federation, no client",
            mend="the key is for clients alone: make it with the --state of one",
        )
    return ca_fingerprint(own.ca_pem)


def _read(file: Path) -> bytes:
    """Raises UsageError where it cannot be read."""
    try:
        with file.open("rb") as handle:
            return handle.read(LARGEST)
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}", mend="give a file that you may read") from error


def _shown(held: HeldKey) -> dict[str, Any]:
    return {"epoch": held.key.epoch, "check": held.key.check, "federation": held.federation}


def _tell(held: HeldKey, as_json: bool, done: str) -> None:
    if as_json:
        print_json(_shown(held))
    else:
        click.echo(f"{done} epoch {held.key.epoch}, check {held.key.check}".strip())
