"""A program of ours that kills itself: collab-server, collab-client or collab.

A durable transition is each fsync, rename, replace and unlink, each commit of a transaction that writes, each chunk of
a transfer, each Cholesky factor of a merge. Its name says what it is, whose work (the product's public function), and
of a round that is recorded what befell it, and by whose doing: `commit/SqlStore.record/Enter/arosa`. Those of one name
are counted from the start of the process: a point means the same moment in each run, however threads and parties
interleave. The trace gets a line for each. A point is NAME:N:before or NAME:N:after the N-th, where the process sends
itself SIGKILL. "after" a chunk or a factor is in the middle of it: half of its bytes are written, or its result is
thrown away. The product's own code knows nothing of this.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module
from types import FrameType
from typing import Any

from preloaded import PROGRAMS

RECORDED = "commit/SqlStore.record"
OPENED = "Open"


def caller() -> str:
    """The product's public function that is at work in this thread."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        code, module = frame.f_code, frame.f_globals.get("__name__", "")
        if module.startswith("collabedit.") and module != "collabedit.common.files" and code.co_name[0] not in "_<":
            return code.co_qualname
        frame = frame.f_back
    return "library"


class Doom:
    """Counts transitions, writes them down, and kills at one. event: what the next round recorded is recorded for."""

    def __init__(self, trace: str, point: str) -> None:
        self._trace = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._point, _, self._when = point.rpartition(":")
        self._counts: Counter[str] = Counter()
        self._lock = threading.RLock()
        self.event = OPENED

    def note(self, line: str) -> None:
        """A line of the trace; it is in the kernel when this returns, whatever becomes of the process."""
        os.write(self._trace, f"{line}\n".encode())

    def reached(self, what: str) -> bool:
        """Counts a transition; killed before it, if that is its fate. True: the caller kills in or after it."""
        name = f"{what}/{caller()}"
        if name == RECORDED:
            name = f"{name}/{self.event}"
        with self._lock:
            self._counts[name] += 1
            here = f"{name}:{self._counts[name]}"
            self.note(f"at {here}")
            if here != self._point:
                return False
            if self._when == "before":
                self.kill()
            return True

    def kill(self) -> None:
        """SIGKILL, to this process."""
        self.note("killed")
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()

    def around(self, owner: Any, attribute: str, what: str) -> None:
        """Makes a function a transition."""
        inner: Callable[..., Any] = getattr(owner, attribute)

        def wrapped(*args: Any, **options: Any) -> Any:
            doomed = self.reached(what)
            result = inner(*args, **options)
            if doomed:
                self.kill()
            return result

        setattr(owner, attribute, wrapped)


def watch_the_disk(doom: Doom) -> None:
    """What makes bytes and names last."""
    for name in ("fsync", "rename", "replace", "unlink"):
        doom.around(os, name, name)


def watch_commits(doom: Doom) -> None:
    """Commits of transactions that have changed something."""
    from sqlalchemy import event
    from sqlalchemy.engine import Connection, Engine

    inner = Connection._commit_impl

    @event.listens_for(Engine, "before_cursor_execute")
    def executes(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.lstrip().upper().startswith(("SELECT", "WITH", "BEGIN", "PRAGMA")):
            connection.info["wrote"] = True

    def commit(self: Connection) -> None:
        doomed = self.info.pop("wrote", False) and doom.reached("commit")
        inner(self)
        if doomed:
            doom.kill()

    Connection._commit_impl = commit  # type: ignore[method-assign]


def watch_events(doom: Doom) -> None:
    """What befalls a round before it is recorded; the thread that writes does both, one after the other."""
    from collabedit.server import keeper
    from collabedit.server.sql_store import SqlStore

    advance, record = keeper.advance, SqlStore.record

    def advanced(round_: Any, event: Any) -> Any:
        changed = advance(round_, event)
        doom.event = "/".join(filter(None, (type(event).__name__, getattr(event, "client", ""))))
        return changed

    def recorded(store: SqlStore, round_: Any) -> int:
        try:
            return record(store, round_)
        finally:
            doom.event = OPENED

    keeper.advance, SqlStore.record = advanced, recorded  # type: ignore[assignment,method-assign]


def watch_arriving_chunks(doom: Doom) -> None:
    """Chunks that a server writes."""
    from collabedit.server.uploads import Partial

    inner = Partial.append

    def append(self: Partial, offset: int, data: bytes) -> None:
        if doom.reached("chunk"):
            inner(self, offset, data[: len(data) // 2])
            doom.kill()
        inner(self, offset, data)

    Partial.append = append  # type: ignore[method-assign]


def watch_transfers(doom: Doom) -> None:
    """Chunks that a client sends, with their bytes, and those that it receives."""
    from collabedit.client import transfer

    chunks, take = transfer._chunks, transfer._take

    def sent(*args: Any) -> Iterator[Any]:
        for chunk in chunks(*args):
            doomed = doom.reached("sent")
            doom.note(f"sent {len(chunk.data)}")
            yield chunk
            if doomed:
                doom.kill()

    def received(replies: Any, handle: Any, *rest: Any) -> int:
        def counted() -> Iterator[Any]:
            for reply in replies:
                if doom.reached("received"):
                    handle.write(reply.data[: len(reply.data) // 2])
                    doom.kill()
                yield reply

        return take(counted(), handle, *rest)

    transfer._chunks, transfer._take = sent, received  # type: ignore[assignment]


def watch_merges(doom: Doom) -> None:
    """Cholesky factors of a merge; torch is imported when the server first merges, and not before."""
    from collabedit.server.merging import Merger

    inner = Merger.merge

    def merge(*args: Any, **options: Any) -> Any:
        import torch

        if not hasattr(torch.linalg.cholesky_ex, "doomed"):
            doom.around(torch.linalg, "cholesky_ex", "factor")
            torch.linalg.cholesky_ex.doomed = True  # type: ignore[attr-defined]
        return inner(*args, **options)

    Merger.merge = merge  # type: ignore[method-assign]


WATCHES = {
    "collab-server": (watch_the_disk, watch_commits, watch_events, watch_arriving_chunks, watch_merges),
    "collab-client": (watch_the_disk, watch_commits, watch_transfers),
    "collab": (watch_the_disk,),
}


def live(trace: str, point: str, program: str, *arguments: str) -> None:
    """Runs the program as its console script would."""
    sys.argv = [program, *arguments]
    doom = Doom(trace, point)
    for each in WATCHES[program]:
        each(doom)
    import_module(PROGRAMS[program]).main()
