"""What the client says while it works: bars on a terminal, plain lines elsewhere, all on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TextIO

PLAIN_EVERY: Final = 10.0  # seconds between two lines about one long step when there is no terminal

Tick = Callable[[int, int], None]


class Voice:
    """Speaks on `stream`; a terminal gets bars, anything else a line with the time now and then."""

    def __init__(self, stream: TextIO | None = None) -> None:
        from rich.console import Console

        self._console = Console(file=stream or sys.stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def say(self, line: str) -> None:
        """One line."""
        stamp = "" if self._console.is_terminal else time.strftime("%Y-%m-%d %H:%M:%S ")
        self._console.print(f"{stamp}{line}")

    @contextmanager
    def progress(self, what: str) -> Iterator[Tick]:
        """A long step: call the tick with (done, total) as often as wanted."""
        if not self._console.is_terminal:
            yield self._plain(what)
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
        with Progress(*columns, TimeRemainingColumn(), console=self._console, transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    def _plain(self, what: str) -> Tick:
        due = time.monotonic() + PLAIN_EVERY

        def tick(done: int, total: int) -> None:
            nonlocal due
            if total and time.monotonic() >= due:
                due = time.monotonic() + PLAIN_EVERY
                self.say(f"{what}: {100 * done // total} %")

        return tick
