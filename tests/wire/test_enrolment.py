"""Enrolling: one command, a token used once, a key that stays, and nothing sent to a server that is not the one."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from collabedit.client.connection import connect
from collabedit.client.enrolment import Enrolled, enrol, host_name, identity, parse_fingerprint
from collabedit.common import pki
from collabedit.common.credentials import Credentials
from collabedit.common.errors import CollabEditError, ExitCode, IdentityError, StateError, UnreachableError, UsageError
from collabedit.v1 import federation_pb2 as pb
from collabedit.v1 import federation_pb2_grpc as rpc


def join(federation: Any, folder: Path, token: str | None = None, name: str | None = "alice", **more: Any) -> Enrolled:
    """The enrolment command with the right address and fingerprint, unless told otherwise."""
    given = {"server": f"localhost:{federation.enrol_port}", "fingerprint": federation.authority.fingerprint, **more}
    return enrol(given["server"], token or federation.token(), given["fingerprint"], folder, client_id=name)


def asked(federation: Any, method: str) -> int:
    """How often the enrolment port heard a method."""
    return sum(name == method for name, _ in federation.recorder.requests)


@pytest.mark.wheel
def test_from_a_token_to_a_call(federation: Any, tmp_path: Path) -> None:
    """After enrolling, the folder alone is enough to call the federation, as the client that one asked to be."""
    folder = tmp_path / "client" / "credentials"
    who = join(federation, folder)
    assert (who.client_id, who.role, who.federation) == ("alice", "client", federation.authority.fingerprint)
    assert who == identity(folder)
    assert (folder / "client.key").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o077 == 0
    assert folder.parent.stat().st_mode & 0o077 == 0, "the state folder: its ledger will hold the edits"
    credentials = Credentials.load(folder)
    assert credentials.server == f"localhost:{federation.port}"
    with connect(credentials.server, folder) as connection:
        method = rpc.OperationsStub(connection.channel).GetStatus
        assert connection.call(method, pb.GetStatusRequest(), patience=0).clients == 1
    known = federation.memory.client("alice")
    assert (known.role, known.serial) == (
        "client",
        str(pki.load_certificate(credentials.certificate_pem).serial_number),
    )


def test_the_token_is_sent_to_nobody_else(federation: Any, start: Any, tmp_path: Path) -> None:
    """With another CA's fingerprint: refused as an identity, and the server has heard neither token nor request."""
    other = start("other")
    with pytest.raises(IdentityError, match="not sha256:") as caught:
        join(federation, tmp_path, fingerprint=other.authority.fingerprint)
    assert "token was not sent" in caught.value.mend
    assert caught.value.exit_code is ExitCode.REFUSED_IDENTITY
    assert asked(federation, "GetAuthority") == 1
    assert asked(federation, "Enrol") == 0
    assert not federation.memory.asked
    assert not (tmp_path / "client.key").exists()


def test_a_server_that_shows_the_right_ca_with_a_wrong_certificate(federation: Any, start: Any, tmp_path: Path) -> None:
    """Someone in between can repeat the CA's certificate, which is public, but has none of its own from it."""
    between = start("between")
    between.authority.ca_pem = federation.authority.ca_pem
    with pytest.raises(IdentityError, match="not issued by the federation's CA"):
        join(federation, tmp_path, server=f"localhost:{between.enrol_port}")
    assert asked(between, "Enrol") == 0


def test_a_token_is_used_up(federation: Any, tmp_path: Path) -> None:
    """The second party with a one-time token is refused; one with two uses serves two."""
    token = federation.token()
    join(federation, tmp_path / "a", token)
    with pytest.raises(IdentityError, match="unknown, used up or expired"):
        join(federation, tmp_path / "b", token, "bob")
    assert not (tmp_path / "b" / "client.pem").exists()
    twice = federation.token(uses=2)
    for name in ("bob", "carol"):
        join(federation, tmp_path / name, twice, name)
    with pytest.raises(IdentityError, match="used up"):
        join(federation, tmp_path / "dave", twice, "dave")


def test_unknown_and_expired_tokens_are_refused_alike(federation: Any, tmp_path: Path) -> None:
    """Same code, same name, same words; nothing is signed."""
    expired = federation.token(minutes=1)
    federation.now += timedelta(minutes=2)
    said = set()
    for token in ("WRONG-TOKEN", expired):
        with pytest.raises(IdentityError) as caught:
            join(federation, tmp_path, token)
        said.add(str(caught.value))
    assert len(said) == 1
    assert not federation.memory.members


def test_a_token_may_be_typed(federation: Any, tmp_path: Path) -> None:
    """Capitals, hyphens and spaces do not matter."""
    token = federation.token()
    assert re.fullmatch(r"([A-Z2-7]{4}-){6}[A-Z2-7]{2}", token)
    join(federation, tmp_path, f" {token.lower().replace('-', ' ')} ")


def test_repeating_a_request_gives_the_same_certificate(federation: Any, tmp_path: Path) -> None:
    """The answer was lost: the same command uses no second token and gets the same certificate, key and name."""
    token = federation.token()
    join(federation, tmp_path, token)
    first = (tmp_path / "client.pem").read_bytes()
    (tmp_path / "client.pem").unlink()  # as if the client had been killed before it wrote the certificate
    assert join(federation, tmp_path, token).client_id == "alice"
    assert (tmp_path / "client.pem").read_bytes() == first
    assert join(federation, tmp_path, token, None).client_id == "alice"
    assert len(federation.memory.members) == 1


def killed_before_remembering(federation: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A token with which alice asked; her certificate was on the server's disk when the server died."""
    token = federation.token()
    with monkeypatch.context() as patched:
        patched.delattr(type(federation.memory), "enrol_client")
        with pytest.raises(CollabEditError):
            join(federation, tmp_path / "alice", token)
    assert federation.memory.client("alice") is None
    return token


def test_a_server_killed_between_signing_and_remembering(federation: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """No use of the token was taken without the client in the store: repeating the request finishes the job."""
    token = killed_before_remembering(federation, tmp_path, monkeypatch)
    assert join(federation, tmp_path / "alice", token).serial == federation.memory.client("alice").serial
    with pytest.raises(IdentityError, match="used up"):
        join(federation, tmp_path / "bob", token, "bob")


def test_a_token_lets_one_party_in_whoever_asked_first(federation: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """A request that a kill left half done is worth nothing once another has used the token; its name is free."""
    token = killed_before_remembering(federation, tmp_path, monkeypatch)
    join(federation, tmp_path / "bob", token, "bob")
    with pytest.raises(IdentityError, match="used up"):
        join(federation, tmp_path / "alice", token)
    assert join(federation, tmp_path / "another").client_id == "alice"


def test_the_key_never_leaves(federation: Any, tmp_path: Path) -> None:
    """Neither what the server was sent nor anything on its disk holds the private key, in PEM or as a number."""
    join(federation, tmp_path / "client")
    pem = (tmp_path / "client" / "client.key").read_bytes()
    secret = pki.load_key(pem).private_numbers().private_value.to_bytes(32, "big")
    body = b"".join(pem.splitlines()[1:-1])
    forms = (secret, secret.hex().encode(), base64.b64encode(secret)[:40], body, pem.splitlines()[1])
    places = [data for _, data in federation.recorder.requests]
    places += [file.read_bytes() for file in federation.folder.rglob("*") if file.is_file()]
    assert len(places) > 5
    assert not [form for form in forms for place in places if form in place]


def test_the_token_is_not_on_the_servers_disk(federation: Any, tmp_path: Path) -> None:
    """The server keeps a hash."""
    token = federation.token()
    join(federation, tmp_path / "client", token)
    forms = (token.encode(), token.replace("-", "").encode())
    places = [file.read_bytes() for file in federation.folder.rglob("*") if file.is_file()]
    assert not [form for form in forms for place in places if form in place]


def test_a_name_is_taken(federation: Any, tmp_path: Path) -> None:
    """Another key under a name that is in use is refused, and keeps its token for another name."""
    join(federation, tmp_path / "a")
    token = federation.token()
    with pytest.raises(IdentityError, match="belongs to another key"):
        join(federation, tmp_path / "b", token)
    with pytest.raises(IdentityError, match="belongs to another key"):
        join(federation, tmp_path / "b", token, "admin")
    assert join(federation, tmp_path / "b", token, "bob").client_id == "bob"


def test_names_are_not_told_to_strangers(federation: Any, tmp_path: Path) -> None:
    """Without a good token, a taken name and a free one are refused alike."""
    join(federation, tmp_path / "a")
    said = set()
    for name in ("alice", "bob"):
        with pytest.raises(IdentityError) as caught:
            join(federation, tmp_path / name, "NO-TOKEN", name)
        said.add(str(caught.value))
    assert len(said) == 1


def test_a_certificate_is_renewed(federation: Any, tmp_path: Path) -> None:
    """With a new token the same key gets a new certificate, and the old one counts no more."""
    join(federation, tmp_path)
    old = Credentials.load(tmp_path)
    federation.now += timedelta(days=1)
    join(federation, tmp_path, name=None)
    new = Credentials.load(tmp_path)
    assert new.key_pem == old.key_pem
    assert new.certificate_pem != old.certificate_pem
    with federation.connect(old) as connection, pytest.raises(IdentityError, match="replaced"):
        method = rpc.OperationsStub(connection.channel).GetStatus
        connection.call(method, pb.GetStatusRequest(), patience=0)


def test_a_revoked_client_comes_back_with_a_new_token_alone(federation: Any, tmp_path: Path) -> None:
    """Repeating the old request does not undo a revocation; a new token, with a new key, does."""
    token = federation.token()
    join(federation, tmp_path / "a", token)
    federation.memory.revoke("alice")
    with pytest.raises(IdentityError, match="revoked"):
        join(federation, tmp_path / "a", token)
    join(federation, tmp_path / "b")
    assert not federation.memory.client("alice").revoked


def test_an_observers_token(federation: Any, tmp_path: Path) -> None:
    """Its user becomes an observer, by the certificate and by what the server remembers."""
    assert join(federation, tmp_path, federation.token(role="observer"), "watch").role == "observer"
    assert federation.memory.members["watch"].role == "observer"


def test_an_admins_token(federation: Any, tmp_path: Path) -> None:
    """The token's role goes into the certificate, whatever the request says."""
    assert join(federation, tmp_path, federation.token(role="admin"), "boss").role == "admin"


def test_credentials_of_another_federation_are_not_overwritten(federation: Any, start: Any, tmp_path: Path) -> None:
    """Nothing is asked of the server, nothing changes on disk; so for another name in the same federation."""
    join(federation, tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    other = start("other")
    with pytest.raises(StateError, match="federation") as caught:
        join(other, tmp_path)
    assert "--state" in caught.value.mend
    with pytest.raises(StateError, match="alice"):
        join(federation, tmp_path, name="bob")
    assert before == {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    assert not other.recorder.requests


@pytest.mark.parametrize("name", ["", "Alice", "a b", "../x", "x" * 65, ".hidden", "a/b", "ä"])
def test_names_that_cannot_be(federation: Any, tmp_path: Path, name: str) -> None:
    """Refused here before anything is asked, and by the server too, which signs nothing."""
    with pytest.raises(IdentityError, match="no client id"):
        join(federation, tmp_path, name=name)
    assert not federation.recorder.requests


def test_requests_that_are_none(federation: Any) -> None:
    """A server asked directly, without our client: one line, INVALID_ARGUMENT, no certificate, the token unused."""
    token = federation.token()
    with grpc.secure_channel(
        f"localhost:{federation.enrol_port}", grpc.ssl_channel_credentials(federation.authority.ca_pem)
    ) as channel:
        for request in (b"", b"junk", pki.create_request(pki.new_key(), "x").replace(b"M", b"N")):
            with pytest.raises(grpc.RpcError) as caught:
                rpc.EnrolmentStub(channel).Enrol(pb.EnrolRequest(token=token, certificate_request_pem=request))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "\n" not in caught.value.details()
    assert not federation.memory.asked


def test_where_the_enrolment_port_is_not(federation: Any, tmp_path: Path) -> None:
    """A closed port is unreachable; the services' port, which wants a certificate, is named as the wrong one."""
    with pytest.raises(UnreachableError, match="localhost:9"):
        join(federation, tmp_path, server="localhost:9")
    with pytest.raises(IdentityError, match="not the enrolment port"):
        join(federation, tmp_path, server=f"localhost:{federation.port}")
    assert not federation.memory.asked


def test_a_host_that_the_certificate_does_not_name(start: Any, tmp_path: Path) -> None:
    """The mend is the server's flag."""
    with pytest.raises(IdentityError, match=r"is for edits\.example\.org") as caught:
        join(start(names=("edits.example.org",)), tmp_path)
    assert "--advertise localhost" in caught.value.mend


def test_fingerprints_as_people_paste_them() -> None:
    """With colons, capitals, without the prefix; anything else is refused."""
    plain = "sha256:" + "0a" * 32
    for text in (plain, plain.upper().replace("SHA256", "sha256"), ":".join(["0A"] * 32), "0a" * 32):
        assert parse_fingerprint(text) == plain
    for text in ("", "sha256:", "0a" * 31, "sha1:" + "0a" * 20, "0g" * 32):
        with pytest.raises(UsageError):
            parse_fingerprint(text)


def test_the_hosts_name_is_a_client_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this host is called, the default is an id."""
    for name in ("Laptop of Ada", "_x_", "", "UPPER.example.org", "a" * 80):
        monkeypatch.setattr("socket.gethostname", lambda name=name: name)
        pki.check_client_id(host_name())


def test_credentials_that_lack_a_file(tmp_path: Path) -> None:
    """A folder without credentials names the file and the mend."""
    with pytest.raises(IdentityError, match=r"ca\.pem") as caught:
        Credentials.load(tmp_path)
    assert "collab pki enrol" in caught.value.mend


def test_a_replaced_server_address_is_kept(federation: Any, tmp_path: Path) -> None:
    """Credentials written and read again are the same."""
    held = replace(federation.credentials(), server="edits.example.org:1234")
    held.save(tmp_path)
    assert Credentials.load(tmp_path) == held
