"""Our commands as processes that need not import torch and transformers first: forked from one that has.

A client reads five seconds' worth of modules before its first line, and the suite starts hundreds. What is forked is a
process like any other: its own pid, environment, standard streams and state folder, to be killed by a real SIGKILL.
tests/house, the demo and the containers start the installed commands themselves.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, Final

PROGRAMS: Final = {
    "collab-server": "collabedit.server.main",
    "collab-client": "collabedit.client.main",
    "collab": "collabedit.cli.main",
}
# Not grpc: a server sets what its core logs before it imports it.
IMPORTED: Final = (
    "torch", "safetensors.torch", "transformers.models.gpt2.modeling_gpt2", "sqlalchemy.dialects.sqlite", "structlog",
    "collabedit.client.main", "collabedit.client.config", "collabedit.client.loading", "collabedit.client.memit",
    "collabedit.common.contribution_file", "collabedit.common.prior", "collabedit.server.main",
)  # fmt: skip
REQUEST: Final = 1 << 18  # bytes


class Forked:
    """A running command, to be used as a `subprocess.Popen` of text."""

    def __init__(self, report: int, stdout: int | None, stderr: int | None) -> None:
        self._report = os.fdopen(report, "rb", buffering=0)
        self.pid = int(self._told())
        self.returncode: int | None = None
        self.stdout: IO[str] | None = os.fdopen(stdout, "r") if stdout is not None else None
        self.stderr: IO[str] | None = os.fdopen(stderr, "r") if stderr is not None else None

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        if self.returncode is None and select.select([self._report], [], [], 0)[0]:
            return self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._report], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            self.returncode = os.waitstatus_to_exitcode(int(self._told()))
        return self.returncode

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

    def _told(self) -> bytes:
        told = b""
        while not told.endswith(b"\n"):
            more = self._report.read(1)
            assert more, "the process that forks the commands is gone"
            told += more
        return told


def start(
    command: Sequence[object],
    *,
    stdout: int | IO[bytes] = subprocess.PIPE,
    stderr: int | IO[bytes] = subprocess.PIPE,
    env: Mapping[str, str] = os.environ,
) -> Forked | subprocess.Popen[str]:
    """Starts a command: forked where it is one of ours, by its installed path. Streams as of `subprocess.Popen`."""
    words = [str(each) for each in command]
    if Path(words[0]).name not in PROGRAMS:
        return subprocess.Popen(words, stdout=stdout, stderr=stderr, text=True, env=dict(env))
    (out_read, out), (err_read, err) = _stream(stdout), _stream(stderr)
    report_read, report = os.pipe()
    request = json.dumps({"command": words, "environment": dict(env)}).encode()
    socket.send_fds(_preloader(), [request], [out, err, report])
    for end in {out, err, report}:
        os.close(end)
    return Forked(report_read, out_read, err_read)


def _stream(wanted: int | IO[bytes]) -> tuple[int | None, int]:
    """Where it is read here, if it is, and where the process writes."""
    if wanted == subprocess.PIPE:
        return os.pipe()
    if wanted == subprocess.DEVNULL:
        return None, os.open(os.devnull, os.O_WRONLY)
    return None, os.dup(wanted if isinstance(wanted, int) else wanted.fileno())


@cache
def _preloader() -> socket.socket:
    """The connection to the process that forks, which is begun by the first call and ends with this one."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        [sys.executable, __file__, str(its.fileno())],
        pass_fds=[its.fileno()], env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
    )  # fmt: skip
    its.close()
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


def _serve(control: socket.socket) -> list[str]:
    """Forks a process for each request, and tells how it ended. Returns in those processes, with the command to run."""
    watched = selectors.DefaultSelector()
    watched.register(control, selectors.EVENT_READ)
    while True:
        for key, _ in watched.select():
            if key.fileobj is not control:
                pid, report = key.data
                watched.unregister(key.fileobj)
                os.close(key.fd)
                os.write(report, b"%d\n" % os.waitpid(pid, 0)[1])
                os.close(report)
                continue
            message, streams, *_ = socket.recv_fds(control, REQUEST, 3)
            if not message:
                sys.exit()
            if not (pid := os.fork()):
                others = [(each.fd, each.data[1]) for each in watched.get_map().values() if each.data]
                watched.close()
                control.close()
                _settle(streams, [end for pair in others for end in pair], **json.loads(message))
                return json.loads(message)["command"]
            *used, report = streams
            for end in used:
                os.close(end)
            os.write(report, b"%d\n" % pid)
            watched.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, report))


def _settle(streams: Sequence[int], others: Sequence[int], command: list[str], environment: dict[str, str]) -> None:
    """Gives a new process streams and an environment of its own, and takes from it what is another's."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, end in enumerate((nothing, *streams[:2])):
        os.dup2(end, number)
    for end in (nothing, *streams, *others):
        os.close(end)
    os.environ.clear()
    os.environ.update(environment)
    sys.stdout.reconfigure(write_through=bool(environment.get("PYTHONUNBUFFERED")))  # type: ignore[union-attr]
    sys.argv = command


def _main() -> None:
    for name in IMPORTED:
        import_module(name)
    gc.freeze()  # so that its pages stay shared
    command = _serve(socket.socket(fileno=int(sys.argv[1])))
    import_module(PROGRAMS[Path(command[0]).name]).main()


if __name__ == "__main__":
    _main()
