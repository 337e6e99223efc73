"""`collab pki` as people run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from collabedit.cli.pki import pki as command
from collabedit.cli.remote import RemoteOptions, sees_all
from collabedit.client.connection import connect
from collabedit.common.credentials import Credentials
from collabedit.common.errors import ExitCode, IdentityError, StateError, UsageError
from collabedit.server.authority import Authority
from collabedit.v1 import federation_pb2 as pb
from collabedit.v1 import federation_pb2_grpc as rpc


def run(*arguments: object) -> Result:
    """One command in this process; its error is raised."""
    result = CliRunner().invoke(command, [str(each) for each in arguments], catch_exceptions=True)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def enrol_arguments(federation: Any, state: Path, role: str = "client") -> list[object]:
    """The arguments of the command that a server prints."""
    server = f"localhost:{federation.enrol_port}"
    return ["enrol", "--server", server, "--token", federation.token(role=role), "--ca-fingerprint",
            federation.authority.fingerprint, "--name", "alice", "--state", state]  # fmt: skip


def test_enrol_and_show(federation: Any, tmp_path: Path) -> None:
    """The command says who one is now; `show` says it again, for people and as JSON."""
    assert "enrolled as alice" in run(*enrol_arguments(federation, tmp_path)).stdout
    shown = run("show", "--state", tmp_path).stdout
    told = json.loads(run("show", "--state", tmp_path, "--json").stdout)
    assert told["client"] == "alice"
    assert told["role"] == "client"
    assert told["federation"] == federation.authority.fingerprint
    assert told["server"] == f"localhost:{federation.port}"
    assert all(value in shown for value in told.values())


@pytest.mark.parametrize(
    ("role", "command"), [("client", "collab-client --edits mine.jsonl"), ("observer", "collab status")]
)
def test_what_to_do_next(federation: Any, tmp_path: Path, role: str, command: str) -> None:
    """As it is to be typed, with the state folder; who takes no part in rounds is sent to none."""
    told = run(*enrol_arguments(federation, tmp_path, role)).stderr
    assert told == f"next: {command} --state {tmp_path}\n"


def test_renew(federation: Any, tmp_path: Path) -> None:
    """A party's own, and the administrator's of the server's state folder; another number each."""
    run(*enrol_arguments(federation, tmp_path))
    federation.authority.admin_credentials(f"localhost:{federation.port}", federation.now)
    for state in (tmp_path, federation.folder):
        said = json.loads(run("renew", "--state", state, "--json").stdout)
        again = json.loads(run("renew", "--state", state, "--json").stdout)
        assert said["client"] == again["client"]
        assert said["serial"] != again["serial"]
    assert "a new certificate, good until" in run("renew", "--state", tmp_path).stdout


def test_revoke_takes_a_name_or_a_number(federation: Any) -> None:
    """One of the two, not both."""
    federation.authority.admin_credentials(f"localhost:{federation.port}", federation.now)
    state = federation.folder
    assert run("revoke", "--serial", 12, "--state", state).stdout.strip() == "revoked 12"
    for words in ([], ["bob", "--serial", 12]):
        with pytest.raises(UsageError):
            run("revoke", *words, "--state", state)


@pytest.mark.parametrize(("role", "all_of_it"), [("client", False), ("observer", True), ("admin", True)])
def test_who_is_shown_all(role: str, all_of_it: bool, federation: Any, tmp_path: Path) -> None:
    """A command asks for what clients are refused only where the certificate says that it is none."""
    federation.credentials(role=role).save(tmp_path / "credentials")
    assert sees_all(RemoteOptions(state=tmp_path)) == all_of_it
    assert sees_all(RemoteOptions(insecure=True))


def test_show_without_credentials(tmp_path: Path) -> None:
    """Names the mend."""
    with pytest.raises(IdentityError) as caught:
        run("show", "--state", tmp_path)
    assert "collab pki enrol" in caught.value.mend


def test_token_and_revoke(federation: Any, tmp_path: Path) -> None:
    """On the server's host, with the credentials in the server's state folder."""
    federation.authority.admin_credentials(f"localhost:{federation.port}", federation.now)
    state = federation.folder
    assert run("token", "--state", state).stdout.strip() == "collab pki enrol for client 1 1440"
    given = ["--uses", 3, "--valid-minutes", 5, "--role", "admin", "--json"]
    assert json.loads(run("token", "--state", state, *given).stdout)["command"].endswith("admin 3 5")
    assert run("revoke", "bob", "--state", state).stdout.strip() == "revoked bob"
    assert json.loads(run("revoke", "bob", "--state", state, "--json").stdout) == {"revoked": "bob", "known": True}
    with pytest.raises(IdentityError, match="no administrator's credentials"):
        run("token", "--state", tmp_path)


@pytest.mark.wheel
def test_a_federation_by_hand(start: Any, tmp_path: Path) -> None:
    """CA, server and client made offline: the server runs without the CA's key, and the client gets through."""
    ca, server, client = tmp_path / "ca", tmp_path / "server" / "pki", tmp_path / "client"
    fingerprint = run("init", "--out", ca).stdout.strip()
    run("server", "--ca", ca, "--name", "localhost", "--name", "127.0.0.1", "--out", server)
    federation = start("server")
    assert not federation.authority.signs
    assert federation.authority.fingerprint == fingerprint
    address = f"localhost:{federation.port}"
    made = run("client", "--ca", ca, "--name", "alice", "--server", address, "--out", client, "--json")
    assert json.loads(made.stdout)["folder"] == str(client)
    with connect(Credentials.load(client).server, client) as connection:
        method = rpc.OperationsStub(connection.channel).GetStatus
        assert connection.call(method, pb.GetStatusRequest(), patience=0).clients == 1


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A CA, a client's credentials, a server's folder of another CA: each is refused by name."""
    ca, other = tmp_path / "ca", tmp_path / "other"
    run("init", "--out", ca)
    run("init", "--out", other)
    run("client", "--ca", ca, "--name", "alice", "--out", tmp_path / "client")
    run("server", "--ca", ca, "--name", "localhost", "--out", tmp_path / "server")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    for arguments in (
        ["init", "--out", ca],
        ["client", "--ca", ca, "--name", "bob", "--out", tmp_path / "client"],
        ["server", "--ca", other, "--name", "localhost", "--out", tmp_path / "server"],
        ["server", "--ca", tmp_path, "--name", "localhost", "--out", tmp_path / "new"],
    ):
        with pytest.raises(StateError):
            run(*arguments)
    assert before == {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}


def test_every_command_has_help_with_an_example() -> None:
    """And a docstring that says what it does."""
    for name in command.commands:
        said = run(name, "--help").stdout
        assert f"collab pki {name}" in said, name


def test_exit_codes_and_one_line(federation: Any, tmp_path: Path) -> None:
    """As a process: a wrong fingerprint ends with 8, a closed port with 7, each told in a line and a mend."""
    collab = Path(sys.executable).parent / "collab"
    right = [str(each) for each in enrol_arguments(federation, tmp_path)]
    wrong_ca, closed = right.copy(), right.copy()
    wrong_ca[wrong_ca.index("--ca-fingerprint") + 1] = "sha256:" + "0" * 64
    closed[closed.index("--server") + 1] = "localhost:9"
    for arguments, code in ((wrong_ca, ExitCode.REFUSED_IDENTITY), (closed, ExitCode.UNREACHABLE)):
        done = subprocess.run([collab, "pki", *arguments], capture_output=True, text=True, env=os.environ, check=False)
        assert done.returncode == code
        assert done.stdout == ""
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.strip().splitlines()) == 2
    assert Authority.open(federation.folder / "pki", federation.now).fingerprint == federation.authority.fingerprint
