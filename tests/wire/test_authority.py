"""The federation's CA in the server's state folder."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from collabedit.common import pki
from collabedit.common.credentials import Credentials
from collabedit.common.errors import StateError
from collabedit.server.authority import Authority, enrolment_command, hash_token, names_of_server, new_token

NOW = datetime(2030, 1, 2, tzinfo=UTC)
NAMES = ("localhost", "127.0.0.1")


def test_made_once(tmp_path: Path) -> None:
    """The first start makes the CA, later ones load it; keys are for their owner's eyes."""
    first = Authority.open(tmp_path / "pki", NOW)
    again = Authority.open(tmp_path / "pki", NOW)
    assert (first.new, again.new) == (True, False)
    assert first.fingerprint == again.fingerprint
    again.server_identity(NAMES, NOW)
    again.admin_credentials("localhost:50051", NOW)
    keys = list((tmp_path / "pki").rglob("*.key"))
    assert len(keys) == 3
    assert {file.stat().st_mode & 0o777 for file in keys} == {0o600}
    assert (tmp_path / "pki").stat().st_mode & 0o077 == 0


def test_a_kill_before_the_certificate_was_written(tmp_path: Path) -> None:
    """A lone CA key is replaced: nobody has seen its certificate."""
    made = Authority.open(tmp_path, NOW)
    (tmp_path / "ca.pem").unlink()
    again = Authority.open(tmp_path, NOW)
    assert again.new
    assert again.fingerprint != made.fingerprint
    assert again.server_identity(NAMES, NOW)


def test_the_servers_certificate_is_kept_while_it_is_good(tmp_path: Path) -> None:
    """New names or a near end make a new one; fewer names do not."""
    authority = Authority.open(tmp_path, NOW)
    first = authority.server_identity(NAMES, NOW)
    assert authority.server_identity(NAMES, NOW + timedelta(days=100)) == first
    assert authority.server_identity(NAMES[:1], NOW) == first
    more = authority.server_identity((*NAMES, "edits.example.org"), NOW)
    assert "edits.example.org" in pki.server_names(pki.load_certificate(more.certificate_pem))
    assert authority.server_identity(NAMES, NOW + timedelta(days=350)) != more
    (tmp_path / "server.pem").write_text("torn")
    assert authority.server_identity(NAMES, NOW)


def test_the_admin_of_this_host(tmp_path: Path) -> None:
    """Credentials with the admin's role; renewed near their end; the server's address is noted anew at each start."""
    authority = Authority.open(tmp_path, NOW)
    folder = authority.admin_credentials("localhost:1", NOW)
    held = Credentials.load(folder)
    assert pki.identity_of(pki.load_certificate(held.certificate_pem)) == ("admin", "admin")
    authority.admin_credentials("localhost:2", NOW)
    again = Credentials.load(folder)
    assert (again.certificate_pem, again.server) == (held.certificate_pem, "localhost:2")
    authority.admin_credentials("localhost:2", NOW + timedelta(days=350))
    assert Credentials.load(folder).certificate_pem != held.certificate_pem


def test_a_ca_whose_key_is_elsewhere(tmp_path: Path) -> None:
    """Certificates made by hand are used; where one is missing, the command that makes it is named."""
    authority = Authority.open(tmp_path, NOW)
    authority.server_identity(NAMES, NOW)
    (tmp_path / "ca.key").unlink()
    by_hand = Authority.open(tmp_path, NOW)
    assert not by_hand.signs
    assert by_hand.server_identity(("other.example.org",), NOW)
    (tmp_path / "server.pem").unlink()
    with pytest.raises(StateError) as caught:
        by_hand.server_identity(NAMES, NOW)
    assert "collab pki server" in caught.value.mend


@pytest.mark.parametrize("file", ["ca.pem", "ca.key"])
def test_damage_is_named(tmp_path: Path, file: str) -> None:
    """A CA that cannot be read, or whose halves do not fit, stops the server: it does not make another."""
    Authority.open(tmp_path, NOW)
    other = Authority.open(tmp_path / "other", NOW)
    for content in (b"torn", (other.folder / file).read_bytes()):
        (tmp_path / file).write_bytes(content)
        with pytest.raises(StateError) as caught:
            Authority.open(tmp_path, NOW)
        assert str(tmp_path) in str(caught.value)
        assert caught.value.mend


def test_tokens() -> None:
    """Each is another, and long enough that guessing is hopeless; the hash does not depend on how it is typed."""
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    token = tokens.pop()
    assert hash_token(token) == hash_token(token.lower().replace("-", "")) == hash_token(f" {token} ")
    assert hash_token(token) == hashlib.sha256(token.replace("-", "").encode()).hexdigest()
    command = enrolment_command("edits.example.org:50052", token, "sha256:00")
    assert command == f"collab pki enrol --server edits.example.org:50052 --token {token} --ca-fingerprint sha256:00"


def test_the_servers_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback, this host, what is listened on and what is advertised; no wildcard, nothing twice."""
    monkeypatch.setattr("socket.gethostname", lambda: "box")
    names = names_of_server(["0.0.0.0", "localhost", "[::1]", "10.0.0.7"], ["edits.example.org"])
    assert names == ("edits.example.org", "localhost", "127.0.0.1", "::1", "box", "10.0.0.7")
