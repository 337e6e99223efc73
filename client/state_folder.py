"""The client's state folder: one process at a time, and a fixed place for everything in it.

credentials/…   made by `collab pki enrol`      outbox/<digest>   contributions written, by content
ledger.sqlite   edits, rounds, our place        blobs/<digest>    weights downloaded, by content
targets/…       z vectors                       covariance/…      the federation's, where it was fetched
federation.key  what claims are blinded under   lock              held while a client runs
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from collabedit.common.digests import DIGEST
from collabedit.common.errors import StateError


@dataclass(frozen=True)
class StateFolder:
    """Paths inside one client's state folder."""

    path: Path

    @property
    def ledger(self) -> Path:
        """The database of edits and rounds."""
        return self.path / "ledger.sqlite"

    @property
    def targets(self) -> Path:
        """The z vectors."""
        return self.path / "targets"

    @property
    def outbox(self) -> Path:
        """Contributions, named by their content address."""
        return self.path / "outbox"

    @property
    def covariance(self) -> Path:
        """The federation's covariance file, where it was fetched."""
        return self.path / "covariance"

    @property
    def blobs(self) -> Path:
        """Weights and factors that came from the server, named by their content address."""
        return self.path / "blobs"

    def make(self) -> None:
        """Makes the folders, readable by their owner alone. Raises StateError where that cannot be."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            for each in (self.targets, self.outbox, self.blobs):
                each.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise StateError(
                f"{error.filename or self.path}: {error.strerror}", mend="give a folder that you may write with --state"
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder for this process; the lock falls with the process, however it ends.

        Raises StateError where another client runs on the folder.
        """
        self.make()
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
                raise StateError(
                    f"{self.path}: in use by another collab-client (process {holder})",
                    mend="stop that one, or give this one a folder of its own with --state",
                ) from error
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)


def prune(folder: Path, keep: Collection[str]) -> None:
    """Removes the content-addressed files of `folder` that nothing needs any more, half-written ones included.

    Whatever else may lie there is not ours, and stays.
    """
    for file in folder.iterdir():
        ours = DIGEST.fullmatch(file.name) is not None or file.suffix == ".part"
        if ours and file.is_file() and file.name not in keep:
            file.unlink(missing_ok=True)
