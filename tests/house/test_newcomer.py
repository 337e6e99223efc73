"""The first five minutes of a new user, with no configuration at all."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
PORTS = (50051, 50052)


def demand_free_ports() -> None:
    """Skips where something else holds the default ports: with no configuration there are no others."""
    for port in PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                pytest.skip(f"port {port}, a default of collab-server, is in use on this machine")


class Newcomer:
    """A person with an empty home folder, who types commands and reads what they say."""

    def __init__(self, home: Path) -> None:
        self.home = home
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("COLLAB_", "XDG_"))}
        self.environment = kept | {
            "HOME": str(home),
            "PATH": f"{BIN}{os.pathsep}{kept['PATH']}",
            "PYTHONUNBUFFERED": "1",
        }
        self.running: list[subprocess.Popen[str]] = []

    def starts(self, line: str) -> subprocess.Popen[str]:
        """A command that goes on, its standard output and error together."""
        process = subprocess.Popen(
            shlex.split(line), env=self.environment, cwd=self.home, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.running.append(process)
        return process

    def types(self, line: str) -> str:
        """A whole line of shell, and what it prints; it must succeed."""
        done = subprocess.run(
            line, shell=True, env=self.environment, cwd=self.home, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """The first line that holds `text`; fails with everything said where the process ends before."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if text in line:
            return line.strip()
    pytest.fail(f"no {text!r} in:\n{''.join(said)}")


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    """A newcomer whose processes are stopped at the end."""
    demand_free_ports()
    person = Newcomer(tmp_path)
    yield person
    for process in person.running:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_three_commands_and_no_configuration(newcomer: Newcomer) -> None:
    """`collab-server`, the one command that it prints, `collab-client --edits mine.jsonl`: the edits are merged."""
    server = newcomer.starts("collab-server")
    enrol = read_until(server, "collab pki enrol --server")
    newcomer.types(enrol[enrol.index("collab pki enrol") :])
    newcomer.types("collab sample-edits --party 1 > mine.jsonl")
    client = newcomer.starts("collab-client --edits mine.jsonl")
    told = read_until(client, "published as version 1")
    edits = len((newcomer.home / "mine.jsonl").read_text().splitlines())
    assert f"{edits} of {edits} edits merged" in told
    client.terminate()
    assert client.wait() == 0
    newcomer.types("collab export --out edited")
    assert (newcomer.home / "edited" / "model.safetensors").is_file()
    server.terminate()
    assert server.wait() == 0
