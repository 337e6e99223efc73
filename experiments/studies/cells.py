"""Finished cells on disk: one JSON line each, forced to disk before the next cell begins.

Each line says the fingerprint of the settings that it is of. A line that a kill cut short is taken away when the file
is opened again; its cell counts as not run.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from collabedit.common.errors import BadFileError, MismatchError, StateError
from collabedit.common.files import sync_folder

FILE: Final = "cells.jsonl"


@dataclass(frozen=True)
class Done:
    """One finished cell. seconds: how long it took by the clock; processor: of the processor, None where not kept."""

    cell: Mapping[str, Any]
    seconds: float
    processor: float | None = None


@dataclass
class CellFile:
    """The cells of one folder, held by this process alone while it is open."""

    path: Path
    fingerprint: str
    done: dict[str, Done] = field(default_factory=dict)
    _handle: IO[bytes] | None = None

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, fingerprint: str) -> Iterator[CellFile]:
        """The folder's cells, for reading and adding.

        Raises MismatchError where they are of other settings, StateError where another process has the folder, and
        BadFileError for a file that is none.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE
        with path.open("a+b") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise StateError(f"{folder}: another process runs a study in it", mend="give another --out") from error
            sync_folder(folder)
            cells = cls(path, fingerprint, _handle=handle)
            cells._read()
            yield cells

    def add(self, key: str, cell: Mapping[str, Any], seconds: float, processor: float) -> None:
        """Adds one finished cell: when this returns it is on disk."""
        assert self._handle is not None
        spent = {"seconds": round(seconds, 3), "processor": round(processor, 3)}
        line = {"fingerprint": self.fingerprint, "key": key, **spent, "cell": cell}
        text = json.dumps(line, ensure_ascii=False, allow_nan=False)
        self._handle.write(text.encode() + b"\n")
        self._handle.flush()
        os.fsync(self._handle.fileno())
        self._take(json.loads(text))  # as a run that reads the file has it: tuples are lists

    def _read(self) -> None:
        assert self._handle is not None
        self._handle.seek(0)
        data = self._handle.read()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            self._handle.truncate(len(whole))
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise BadFileError(f"{self.path}:{number}: no finished cell", mend="remove the folder") from error

    def _take(self, line: Mapping[str, Any]) -> None:
        if line["fingerprint"] != self.fingerprint:
            raise MismatchError(
                f"{self.path.parent}: holds cells of other settings, or of another model",
                mend="give --out another folder, or remove this one",
            )
        self.done[line["key"]] = Done(line["cell"], line["seconds"], line.get("processor"))
