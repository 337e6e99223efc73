"""Processes of ours, forked from one that has read the large libraries: a life begins in no time.

They have one hash seed in common.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from pathlib import Path
from typing import Final

import doomed

LIBRARIES: Final = (
    "torch", "transformers.models.gpt2.modeling_gpt2", "transformers.models.auto.tokenization_auto",
    "sqlalchemy", "alembic.command", "pydantic", "structlog.dev", "cryptography.x509", "scipy.stats", "rich.progress",
)  # fmt: skip
ALONE: Final = threading.Lock()  # multiprocessing asks after every process from each thread that starts one
POLL: Final = 0.02  # seconds


class Life:
    """A program that kills itself at `point` ("": never), its output in `log`."""

    def __init__(self, trace: Path, point: str, program: str, *arguments: str, log: Path) -> None:
        os.environ["OMP_NUM_THREADS"] = "1"
        forks = multiprocessing.get_context("forkserver")
        forks.set_forkserver_preload(list(LIBRARIES))
        said = (str(log), str(trace), point, program, *arguments)
        self._process = forks.Process(target=doomed.live, args=said, daemon=True)  # whatever fails here, it ends too
        with ALONE:
            self._process.start()

    @property
    def pid(self) -> int | None:
        """Its process."""
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit code; negative: the signal that ended it; None while it runs."""
        with ALONE:
            return self._process.exitcode

    def kill(self) -> None:
        """Ends it in whatever state it is, by SIGKILL."""
        with ALONE:
            self._process.kill()

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        while (ended := self.poll()) is None:
            time.sleep(POLL)
        return ended
