"""A federation as it is by default: mutual TLS, enrolment by token, and a client that needs no further flag."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from collabedit.client.connection import credentials_folder
from collabedit.common.errors import ExitCode


def start_server(host, tools, state: str):
    """A coordinator with certificates; its process and the enrolment command that it prints."""
    process = host.start(
        tools.BIN / "collab-server", "--listen", "127.0.0.1:0", "--enrol-listen", "127.0.0.1:0",
        "--state", host.folder / state, "--model", host.model, "--entry-window", "0",
    )  # fmt: skip
    command = shlex.split(process.wait_for("collab pki enrol"))
    address = process.wait_for("listening on ").split("listening on ")[1].split(",")[0]
    return process, address, command[1:]


def test_enrol_then_edit_and_no_other_certificate_will_do(host, tools, tmp_path: Path) -> None:
    """Enrolled, a client finds the server by itself. Another federation's credentials are refused with 8, and so is a
    revoked certificate.
    """
    _, _, enrol = start_server(host, tools, "server")
    _, other, _ = start_server(host, tools, "other-server")
    state = host.folder / "ada"
    enrolment = host.start(tools.BIN / "collab", *enrol, "--name", "ada", "--state", state)
    assert enrolment.end() == 0, enrolment.said
    mine = tools.write_edits(tmp_path / "mine.jsonl", tools.facts(0, 8))

    def client(*flags: str | Path):
        common = ("--edits", mine, "--model", host.model, "--once", "--json")
        return host.start(tools.BIN / "collab-client", *common, *flags)

    done = client("--state", state)
    assert done.end() == 0, done.said
    assert '"merged": 8' in done.out[-1]

    shutil.copytree(credentials_folder(state), credentials_folder(host.folder / "eve"))
    astray = client("--state", host.folder / "eve", "--server", other)
    assert astray.end() == ExitCode.REFUSED_IDENTITY, astray.said
    assert [line for line in astray.lines if line.startswith("error: ")]
    assert "Traceback" not in astray.said

    revoke = host.start(tools.BIN / "collab", "pki", "revoke", "ada", "--state", host.folder / "server")
    assert revoke.end() == 0, revoke.said
    late = client("--state", state)
    assert late.end() == ExitCode.REFUSED_IDENTITY, late.said
    assert "revoked" in late.said
