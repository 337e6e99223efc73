"""The containers, on a real Docker engine: a federation by one command, and a larger one without editing any file."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "deploy" / "compose.yaml"
METHODS = ("unedited", "collabedit", "global-edit", "task-arithmetic", "simple-average", "ties")


def compose_command() -> list[str] | None:
    """`docker compose` or `docker-compose`, where an engine answers; else None."""
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        return None
    if not subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


def test_compose_file_is_short_and_holds_no_password() -> None:
    """An operator can read the whole federation at a glance, and finds no credential in it."""
    text = FILE.read_text()
    assert len(text.splitlines()) <= 120
    assert "PASSWORD" not in text.upper().replace("NO PASSWORDS", "")


class Federation:
    """One compose project; `run` is compose with its name."""

    def __init__(self, command: list[str]) -> None:
        self.command = command
        self.name = f"collabedit-test-{uuid.uuid4().hex[:8]}"

    def run(self, *arguments: str, timeout: int = 1200) -> str:
        """Output of one compose command; fails the test with that output where the command fails."""
        done = subprocess.run(
            [*self.command, "-p", self.name, "-f", str(FILE), *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**os.environ, "COMPOSE_INTERACTIVE_NO_CLI": "1"},
        )
        assert done.returncode == 0, f"{arguments}:\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
        return done.stdout

    def finished(self, service: str) -> list[int]:
        """Exit codes of a service's containers, waiting for each to end."""
        ids = self.run("ps", "-q", service).split()
        done = subprocess.run(["docker", "wait", *ids], capture_output=True, text=True, timeout=600, check=True)
        return [int(code) for code in done.stdout.split()]


@pytest.fixture
def federation() -> Iterator[Federation]:
    """A compose project of its own; everything of it is removed at the end."""
    command = compose_command()
    if command is None:
        pytest.skip("no Docker engine with compose answers here: the containers were not run")
    project = Federation(command)
    yield project
    project.run("down", "-v", "--remove-orphans")


@pytest.mark.compose
def test_three_parties_finish_a_round_over_tls_then_five(federation: Federation) -> None:
    """`up --build` ends with a merged round of three parties and its table; `--scale client=5` adds two to the same."""
    federation.run("build")
    federation.run("up", "-d", timeout=420)
    assert federation.finished("client") == [0, 0, 0]
    assert federation.finished("table") == [0]
    log = federation.run("logs", "--no-color", "table")
    assert all(method in log for method in METHODS), log

    federation.run("up", "-d", "--scale", "client=5", timeout=420)
    assert federation.finished("client") == [0] * 5
    assert federation.finished("table") == [0]
    rounds = federation.run("exec", "-T", "server", "collab", "rounds", "--state", "/state", "--json")
    assert '"published"' in rounds.lower(), rounds
