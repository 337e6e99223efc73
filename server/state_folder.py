"""The server's state folder: one server at a time, and a note of where it listens."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from collabedit.common.errors import StateError, UnreachableError
from collabedit.common.files import write_durably

LOCK: Final = "lock"
NOTE: Final = "server.json"
DATABASE: Final = "rounds.sqlite"
BLOBS: Final = "blobs"
ROOTS: Final = "roots"  # factors of C0: a cache, may be removed
PKI: Final = "pki"


@dataclass(frozen=True)
class Running:
    """Where a running server is: host:port of its services and of enrolment ("" in plaintext), and its process id."""

    listen: str
    enrol_listen: str
    pid: int


@contextmanager
def held(state: Path) -> Iterator[None]:
    """Makes the folder where it lacks and holds it against other servers.

    Raises StateError where another server has it, or where it cannot be written.
    """
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(state / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        mend = "give a folder that this user can write with --state"
        raise StateError(f"{state}: {error.strerror}", mend=mend) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            mend = "stop it first, or give another --state"
            raise StateError(f"{state}: another server is running on this state", mend=mend) from error
        yield
    finally:
        os.close(descriptor)


def note_running(state: Path, running: Running) -> None:
    """Notes where the server listens, for `collab-server --check` and for tools on the same host."""
    write_durably(state / NOTE, json.dumps(asdict(running)).encode() + b"\n")


def forget_running(state: Path) -> None:
    """The server has ended."""
    (state / NOTE).unlink(missing_ok=True)


def read_running(state: Path) -> Running:
    """Where the server of this state listens. Raises UnreachableError where none has noted that it does."""
    try:
        return Running(**json.loads((state / NOTE).read_text()))
    except FileNotFoundError as error:
        raise UnreachableError(f"{state}: no server is running on this state", mend="collab-server") from error
    except (OSError, ValueError, TypeError) as error:
        raise StateError(f"{state / NOTE}: {error}", mend="start the server again") from error
