"""Programs that kill themselves, forked from one that has read the large libraries: a life begins in no time.

They have one hash seed in common.
"""

from __future__ import annotations

from pathlib import Path

import doomed
from preloaded import Forked


class Life(Forked):
    """A program that kills itself at `point` ("": never), its output in `log`."""

    def __init__(self, trace: Path, point: str, program: str, *arguments: str, log: Path) -> None:
        with log.open("ab") as out:
            super().__init__(doomed.live, str(trace), point, program, *arguments, stdout=out, stderr=out)
