"""A federation on this host in processes of its own: a server, parties that enrol with it, their clients.

The installed commands are run, over TLS on loopback, on ports that the system gives. Whatever happens, every process
is stopped when the federation is left.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from collabedit.common.errors import CollabEditError, UnreachableError

START_SECONDS: Final = 60.0  # for a server to listen
STOP_SECONDS: Final = 5.0  # from SIGTERM to SIGKILL
POLL_SECONDS: Final = 0.25
LAST_LINES: Final = 8


class ChildFailedError(CollabEditError):
    """A process of the federation ended before its work was done."""


def installed(command: str) -> str:
    """The path of one of the package's commands: beside this Python, or on the PATH."""
    beside = Path(sys.executable).parent / command
    found = str(beside) if beside.is_file() else shutil.which(command)
    if not found:
        raise UnreachableError(f"no command {command} is installed", mend="pip install collabedit")
    return found


@dataclass
class Child:
    """One process, its standard error in a log file and its standard output in another."""

    name: str
    folder: Path
    process: subprocess.Popen[bytes]
    files: tuple[IO[bytes], ...]
    _read: int = field(default=0, repr=False)

    @classmethod
    def start(cls, name: str, command: Sequence[str], folder: Path, threads: int) -> Child:
        """Starts `command` in a session of its own, so that Ctrl-C reaches this process alone."""
        folder.mkdir(parents=True, exist_ok=True)
        files = ((folder / "stdout").open("wb"), (folder / "log").open("wb"))
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=files[0], stderr=files[1],
            env=environment, start_new_session=True,
        )  # fmt: skip
        return cls(name, folder, process, files)

    def new_lines(self) -> list[str]:
        """Whole lines of the log that were written since the last call."""
        with (self.folder / "log").open("rb") as handle:
            handle.seek(self._read)
            data = handle.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        return whole.decode(errors="replace").splitlines()

    def demand_alive_or_done(self) -> None:
        """Raises ChildFailedError with the last lines of the log where the process ended by a failure."""
        code = self.process.poll()
        if code:
            lines = (self.folder / "log").read_text(errors="replace").splitlines()[-LAST_LINES:]
            said = "\n".join(f"  {self.name}: {line}" for line in lines)
            raise ChildFailedError(f"{self.name} ended with exit code {code}\n{said}")

    def stop(self) -> None:
        """Ends the process if it still runs."""
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for file in self.files:
            file.close()


@dataclass(frozen=True)
class PartyState:
    """How far one party's client is: z vectors found, layers sent, and what it said last."""

    name: str
    found: int
    edits: int
    layers: int
    said: str
    done: bool


@dataclass
class Federation:
    """A running server and its parties, in one folder."""

    folder: Path
    threads: int
    server: Child
    clients: list[Child] = field(default_factory=list)

    @property
    def server_state(self) -> Path:
        """The server's state folder."""
        return self.folder / "server" / "state"

    def state(self, party: str) -> Path:
        """One party's state folder."""
        return self.folder / party / "state"

    def enrol(self, parties: Sequence[str]) -> None:
        """Makes a token, and enrols every party with the command that a person would paste."""
        uses = ("--uses", str(len(parties)), "--json")
        token = json.loads(self._collab("pki", "token", *uses, "--state", str(self.server_state)))
        for party in parties:
            command = shlex.split(token["command"])[1:]
            self._collab(*command, "--name", party, "--state", str(self.state(party)))

    def start_client(self, party: str, edits: Path, model: str) -> None:
        """Starts a party's client, which ends when its edits are merged."""
        command = (
            installed("collab-client"), "--edits", str(edits), "--state", str(self.state(party)), "--model", model,
            "--once", "--json",
        )  # fmt: skip
        self.clients.append(Child.start(party, command, self.folder / party, self.threads))

    def wait(self, edits: Sequence[int], listener: Callable[[PartyState], None]) -> list[dict[str, Any]]:
        """Follows the clients until all are done; returns the JSON object that each printed.

        edits: how many each party has. listener: told each party's state whenever it changes.
        Raises ChildFailedError where the server or a client ends before its time.
        """
        states = [
            PartyState(child.name, 0, count, 0, "starting", False)
            for child, count in zip(self.clients, edits, strict=True)
        ]
        while not all(state.done for state in states):
            self.server.demand_alive_or_done()
            for index, child in enumerate(self.clients):
                now = self._look(child, states[index])
                if now != states[index]:
                    listener(now)
                states[index] = now
                child.demand_alive_or_done()
            time.sleep(POLL_SECONDS)
        return [json.loads((child.folder / "stdout").read_text()) for child in self.clients]

    def export(self, party: str, model: str, out: Path) -> None:
        """Writes the newest published version as a model folder, with a party's own credentials."""
        self._collab("export", "--state", str(self.state(party)), "--model", model, "--out", str(out))

    def _look(self, child: Child, before: PartyState) -> PartyState:
        done = child.process.poll() is not None
        lines = [line[20:] if line[:2] == "20" else line for line in child.new_lines()]
        found = sum(1 for _ in (self.state(child.name) / "targets").glob("*.safetensors"))
        return PartyState(
            before.name,
            max(found, before.found),
            before.edits,
            before.layers + sum(": layer " in line and " sent, " in line for line in lines),
            lines[-1] if lines else before.said,
            done,
        )

    def _collab(self, *arguments: str) -> str:
        ran = subprocess.run(
            [installed("collab"), *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        if ran.returncode:
            raise ChildFailedError(f"collab {' '.join(arguments[:2])}: {ran.stderr.strip().removeprefix('error: ')}")
        return ran.stdout


@contextmanager
def running(folder: Path, model: str, flags: Sequence[str], *, threads: int) -> Iterator[Federation]:
    """A federation whose server listens, its state in `folder`; everything is stopped on leaving.

    flags: further flags of collab-server. threads: CPU threads of each process.
    """
    command = (
        installed("collab-server"), "--state", str(folder / "server" / "state"), "--model", model,
        "--listen", "localhost:0", "--enrol-listen", "localhost:0", *flags,
    )  # fmt: skip
    federation = Federation(folder, threads, Child.start("server", command, folder / "server", threads))
    try:
        _await_listening(federation)
        yield federation
    finally:
        for child in (*federation.clients, federation.server):
            child.stop()


def _await_listening(federation: Federation) -> None:
    """Waits until the server has noted where it listens."""
    deadline = time.monotonic() + START_SECONDS
    note = federation.server_state / "server.json"
    while not note.is_file():
        federation.server.demand_alive_or_done()
        if federation.server.process.poll() is not None or time.monotonic() > deadline:
            raise ChildFailedError("the server did not come up", mend=f"see {federation.server.folder / 'log'}")
        time.sleep(POLL_SECONDS)
