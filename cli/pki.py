"""`collab pki`: certificates of a federation, with its server's help or by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from collabedit.cli.federation_key import federation_key
from collabedit.cli.output import say
from collabedit.cli.pki_options import SETTINGS, json_option, state_option, stated
from collabedit.common.command import print_json

if TYPE_CHECKING:
    from collabedit.client.connection import Connection
    from collabedit.common.pki import KeyPair, Role

ROLE = click.Choice(["client", "observer", "admin"])


@click.group(context_settings=SETTINGS)
def pki() -> None:
    """Certificates: enrol with a federation, renew, issue tokens, revoke; or make them all by hand.

    \b
    A party, with the command that the server printed:
      collab pki enrol --server edits.example.org:50052 --token XXXX-… --ca-fingerprint sha256:…
      collab pki renew
    The operator, on the server's host:
      collab pki token
      collab pki revoke alice
    A federation whose CA is kept elsewhere:
      collab pki init --out ca
      collab pki server --ca ca --name edits.example.org --out server/pki
      collab pki client --ca ca --name alice --out alice/credentials
    The key that parties blind their claims under, which the server must not have:
      collab pki federation-key make
    """


pki.add_command(federation_key)


@pki.command(context_settings=SETTINGS)
@click.option("--server", required=True, help="host:port where the federation enrols.")
@click.option("--token", required=True, help="The token that the operator gave you.")
@click.option("--ca-fingerprint", required=True, help="sha256:… of the federation's CA, from the operator too.")
@click.option("--name", help="Your client id: 1 to 64 of a-z 0-9 . _ -  [default: this host's name]")
@state_option("client")
@json_option
def enrol(server: str, token: str, ca_fingerprint: str, name: str | None, state: Path, as_json: bool) -> None:
    """Join a federation: makes a key on this host and gets a certificate for it. Safe to repeat.

    The token goes only to a server that holds a certificate of the CA with this fingerprint.

    \b
    Example:
      collab pki enrol --server edits.example.org:50052 --token QK7D-… --ca-fingerprint sha256:5f0c… --name alice
    """
    from collabedit.client.connection import credentials_folder
    from collabedit.client.enrolment import enrol as enrol_with

    who = enrol_with(server, token, ca_fingerprint, credentials_folder(state), client_id=name)
    if as_json:
        print_json(_shown(who))
        return
    click.echo(f"enrolled as {who.client_id} with {who.server} until {who.until:%Y-%m-%d}")
    say(f"next: {'collab-client --edits mine.jsonl' if who.role == 'client' else 'collab status'}{stated(state)}")


@pki.command(context_settings=SETTINGS)
@state_option("client")
@json_option
def show(state: Path, as_json: bool) -> None:
    """Who this host is to the federation, and until when; `fingerprint` is its public key's.

    \b
    Example:
      collab pki show --json
    """
    from datetime import UTC, datetime

    from collabedit.client.connection import credentials_folder
    from collabedit.client.enrolment import identity
    from collabedit.common.pki import expires_soon, load_certificate

    who = identity(credentials_folder(state))
    if as_json:
        print_json(_shown(who))
    else:
        for line in _lines(who):
            click.echo(line)
    certificate = load_certificate((who.folder / "client.pem").read_bytes())
    if expires_soon(certificate, datetime.now(UTC)):
        say("the certificate ends soon: `collab pki renew`, as long as it holds; then only `collab pki enrol` again")


@pki.command(context_settings=SETTINGS)
@state_option("client")
@click.option("--server", help="host:port of the services.  [default: $COLLAB_SERVER, the enrolment's]")
@json_option
def renew(state: Path, server: str | None, as_json: bool) -> None:
    """Get a new certificate for the key that this host has, with the one that it has. Safe to repeat.

    `collab-client` does it by itself when 30 days are left. The server's own --state renews its administrator's.

    \b
    Example:
      collab pki renew
    """
    import os

    from collabedit.cli.remote import credentials_of
    from collabedit.client.renewal import renew as renew_certificate

    who = renew_certificate(credentials_of(state), server=server or os.environ.get("COLLAB_SERVER") or "")
    if as_json:
        print_json(_shown(who))
    else:
        click.echo(f"{who.client_id}: a new certificate, good until {who.until:%Y-%m-%d}")


@pki.command(context_settings=SETTINGS)
@click.option("--uses", type=click.IntRange(1, 10_000), default=1, show_default=True, help="Parties that may use it.")
@click.option("--valid-minutes", type=click.IntRange(1, 525_600), default=1440, show_default=True, help="Its lifetime.")
@click.option("--role", type=ROLE, default="client", show_default=True, help="What its users become.")
@state_option("server")
@json_option
def token(uses: int, valid_minutes: int, role: str, state: Path, as_json: bool) -> None:
    """Make an enrolment token on the server's host; prints the command that the party runs.

    \b
    Examples:
      collab pki token
      collab pki token --uses 10 --valid-minutes 60
      collab pki token --role observer
      collab pki token --role admin
    """
    from collabedit.v1 import federation_pb2 as pb
    from collabedit.v1 import federation_pb2_grpc as rpc

    with _as_admin(state) as connection:
        request = pb.IssueTokenRequest(uses=uses, valid_minutes=valid_minutes, role=role)
        reply = connection.call(rpc.OperationsStub(connection.channel).IssueToken, request, patience=0)
    if as_json:
        print_json({"token": reply.token, "command": reply.command, "role": role, "uses": uses})
    else:
        click.echo(reply.command)


@pki.command(context_settings=SETTINGS)
@click.argument("client", required=False)
@click.option("--serial", help="One certificate, by its serial number, in place of CLIENT with all of its own.")
@state_option("server")
@json_option
def revoke(client: str | None, serial: str | None, state: Path, as_json: bool) -> None:
    """Shut CLIENT out, within seconds, with every certificate of that name. Run it on the server's host.

    The server need not have seen the name or the certificate: one that was made by hand is refused from the first call
    on. A client that enrols again with a new token is let in again.

    \b
    Examples:
      collab pki revoke alice
      collab pki revoke --serial 402133418274001928374
    """
    from collabedit.common.errors import UsageError
    from collabedit.v1 import federation_pb2 as pb
    from collabedit.v1 import federation_pb2_grpc as rpc

    if (client is None) == (serial is None):
        raise UsageError("give CLIENT or --serial, one of the two")
    with _as_admin(state) as connection:
        stub = rpc.OperationsStub(connection.channel)
        reply = connection.call(stub.Revoke, pb.RevokeRequest(client_id=client or "", serial=serial or ""), patience=0)
    if as_json:
        print_json({"revoked": client or serial, "known": reply.known})
        return
    click.echo(f"revoked {client or serial}")
    if not reply.known:
        say("the server had not seen it before: it is refused from the first call on")


@pki.command(context_settings=SETTINGS)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for ca.pem and ca.key.")
@json_option
def init(out: Path, as_json: bool) -> None:
    """Make a CA by hand, for ten years. Refuses a folder that has one.

    \b
    Example:
      collab pki init --out ca
    """
    from datetime import UTC, datetime

    from collabedit.common.errors import StateError
    from collabedit.server.authority import Authority

    if (out / "ca.pem").exists() or (out / "ca.key").exists():
        raise StateError(f"{out}: there is a CA already", mend="give another --out")
    authority = Authority.open(out, datetime.now(UTC))
    if as_json:
        print_json({"folder": str(out), "ca_fingerprint": authority.fingerprint})
    else:
        click.echo(authority.fingerprint)


@pki.command(context_settings=SETTINGS)
@click.option("--ca", required=True, type=click.Path(path_type=Path, exists=True), help="Folder of `pki init`.")
@click.option("--name", "names", required=True, multiple=True, help="Host name or address; may be repeated.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder: the server's STATE/pki.")
@json_option
def server(ca: Path, names: tuple[str, ...], out: Path, as_json: bool) -> None:
    """Make a server's certificate by hand, for a year.

    \b
    Example:
      collab pki server --ca ca --name edits.example.org --name localhost --out server/pki
    """
    from datetime import UTC, datetime

    from collabedit.common.pki import issue_server
    from collabedit.server.authority import save_server

    signer = _signer(ca)
    made = issue_server(signer, names, datetime.now(UTC))
    save_server(out, signer.certificate_pem, made)
    _told(out, made, as_json)


@pki.command(context_settings=SETTINGS)
@click.option("--ca", required=True, type=click.Path(path_type=Path, exists=True), help="Folder of `pki init`.")
@click.option("--name", required=True, help="The client's id: 1 to 64 of a-z 0-9 . _ -")
@click.option("--role", type=ROLE, default="client", show_default=True, help="What it may do.")
@click.option("--server", "address", default="localhost:50051", show_default=True, help="The services' host:port.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder: the client's STATE/credentials.")
@json_option
def client(ca: Path, name: str, role: Role, address: str, out: Path, as_json: bool) -> None:
    """Make a client's key and certificate by hand, for a year; carry the folder over a safe way.

    \b
    Example:
      collab pki client --ca ca --name alice --server edits.example.org:50051 --out alice/credentials
    """
    from datetime import UTC, datetime

    from collabedit.client.connection import Address
    from collabedit.common.credentials import CERTIFICATE_FILE, Credentials
    from collabedit.common.errors import StateError
    from collabedit.common.pki import issue_client

    if (out / CERTIFICATE_FILE).exists():
        raise StateError(f"{out}: there are credentials already", mend="give another --out")
    signer = _signer(ca)
    made = issue_client(signer, name, role, datetime.now(UTC))
    Credentials(signer.certificate_pem, made.certificate_pem, made.key_pem, str(Address.parse(address))).save(out)
    _told(out, made, as_json)


def _as_admin(state: Path) -> Connection:
    """The server whose state this is, as its admin: at $COLLAB_SERVER, else on this host."""
    import os

    from collabedit.client.connection import DEFAULT_SERVER, connect
    from collabedit.common.credentials import Credentials
    from collabedit.common.errors import IdentityError

    folder = state / "pki" / "admin"
    if not (folder / "client.pem").exists():
        raise IdentityError(
            f"{folder}: no administrator's credentials", mend="run this on the server's host, with the server's --state"
        )
    held = Credentials.load(folder)
    return connect(os.environ.get("COLLAB_SERVER") or held.server or DEFAULT_SERVER, held)


def _signer(folder: Path) -> KeyPair:
    from datetime import UTC, datetime

    from collabedit.common.errors import StateError
    from collabedit.server.authority import Authority

    if not (folder / "ca.pem").exists():
        raise StateError(f"{folder}: no CA there", mend="make one with `collab pki init`")
    return Authority.open(folder, datetime.now(UTC)).signer


def _shown(who: Any) -> dict[str, str]:
    return {
        "client": who.client_id,
        "role": who.role,
        "federation": who.federation,
        "server": who.server,
        "until": who.until.isoformat(),
        "serial": who.serial,
        "fingerprint": who.fingerprint,
        "credentials": str(who.folder),
    }


def _lines(who: Any) -> list[str]:
    return [f"{key:<12} {value}" for key, value in _shown(who).items()]


def _told(out: Path, made: KeyPair, as_json: bool) -> None:
    until = made.certificate.not_valid_after_utc
    if as_json:
        print_json({"folder": str(out), "until": until.isoformat()})
    else:
        click.echo(f"{out}: good until {until:%Y-%m-%d}")
