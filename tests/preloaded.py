"""Our commands as processes that need not import torch and transformers first: forked from one that has.

A client reads five seconds' worth of modules before its first line, and the suite starts hundreds. What is forked is a
process like any other: its own pid, environment, standard streams and state folder, to be killed by a real SIGKILL.
tests/house, the demo and the containers start the installed commands themselves.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, Final

PROGRAMS: Final = {
    "collab-server": "collabedit.server.main",
    "collab-client": "collabedit.client.main",
    "collab": "collabedit.cli.main",
}
# Not grpc: a server sets what its core logs before it imports it.
LIBRARIES: Final = (
    "torch", "safetensors.torch", "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.auto.tokenization_auto", "sqlalchemy.dialects.sqlite", "alembic.command", "pydantic",
    "structlog.dev", "cryptography.x509", "scipy.stats", "rich.progress",
)  # fmt: skip
ALONE: Final = threading.Lock()  # multiprocessing asks after every process from each thread that starts one


class Forked:
    """A running function in a process of its own, to be used as a `subprocess.Popen` of text."""

    def __init__(
        self, function: Callable[..., None], *arguments: Any, stdout: IO[bytes] | None, stderr: IO[bytes] | None
    ) -> None:
        os.environ["OMP_NUM_THREADS"] = "1"
        forks = multiprocessing.get_context("forkserver")
        forks.set_forkserver_preload(list(LIBRARIES))
        self.stdout, out = _stream(stdout)
        self.stderr, err = _stream(stderr)
        self._process = forks.Process(target=_begin, args=(out, err, function, *arguments), daemon=True)
        with ALONE:
            self._process.start()
        out.close()
        err.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        with ALONE:
            return self._process.exitcode

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended. Raises subprocess.TimeoutExpired."""
        multiprocessing.connection.wait([self._process.sentinel], timeout)
        ended = self.poll()
        if ended is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return ended

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def start(
    command: Sequence[object], *, env: Mapping[str, str], stderr: IO[bytes] | None = None
) -> Forked | subprocess.Popen[str]:
    """Starts a command; output is piped, but what has a file.

    It is forked where it is one of ours, by its installed path, and begins with no library of its own (LD_PRELOAD).
    """
    words = [str(each) for each in command]
    if Path(words[0]).name in PROGRAMS and "LD_PRELOAD" not in env:
        return Forked(_run, words, dict(env), stdout=None, stderr=stderr)
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=stderr or subprocess.PIPE, text=True, env=env)


def _stream(file: IO[bytes] | None) -> tuple[IO[str] | None, Connection]:
    """A file to write to; or, for none, a pipe: where it is read here, and where the process writes."""
    if file is not None:
        return None, Connection(os.dup(file.fileno()), readable=False)
    read, write = os.pipe()
    return os.fdopen(read, "r"), Connection(write, readable=False)


def _begin(out: Connection, err: Connection, function: Callable[..., None], *arguments: Any) -> None:
    for number, stream in ((1, out), (2, err)):
        os.dup2(stream.fileno(), number)
        stream.close()
    function(*arguments)


def _run(command: list[str], environment: dict[str, str]) -> None:
    """As the installed script would."""
    os.environ.clear()
    os.environ.update(environment)
    sys.stdout.reconfigure(write_through=bool(environment.get("PYTHONUNBUFFERED")))  # type: ignore[union-attr]
    sys.argv = command
    import_module(PROGRAMS[Path(command[0]).name]).main()
