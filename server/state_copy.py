"""A copy of a server's state that is whole, taken while the server runs: `collab backup`.

A backup is a folder like the state's: the database as one SQLite file, blobs under their digests, the CA and
certificates with their modes; and a manifest with every file's digest, written last: a folder without one is no backup.
Unfinished uploads and kept factors are left out: clients send the first again, a merge makes the second anew.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from sqlalchemy import Engine

from collabedit.common.errors import StateError
from collabedit.common.files import write_durably
from collabedit.common.settings import FederationSettings
from collabedit.server.backup_files import (
    FORMAT,
    MANIFEST,
    File,
    Manifest,
    copied,
    described,
    files_in,
    linked,
    new_folder,
    read_manifest,
)
from collabedit.server.belonging import NOTE
from collabedit.server.database import open_engine, sqlite_url
from collabedit.server.database_copy import copy_to_file
from collabedit.server.sql_store import SqlStore
from collabedit.server.state_folder import BLOBS, DATABASE, PKI

WHOLE: Final = "whole"
ATTEMPTS: Final = 20  # rounds that may end, and sweep blobs away, while one backup is taken
SEE: Final = "`collab doctor` says what rests on it; a backup taken before has it"


def back_up(state: Path, out: Path, *, database: str | None = None, previous: Path | None = None) -> Manifest:
    """Copies the state, whose server may run, into a new or empty folder, and compares every blob with its digest.

    database: its URL, where it is not the SQLite file in the state. previous: a backup on the same disk, with which the
    new one shares the files of the blobs that both hold. Raises StateError where there is no database, or a blob that
    is needed is damaged or gone; UsageError for a folder that holds something; BadFileError where `previous` is none.
    """
    if database is None and not (state / DATABASE).is_file():
        mend = "give the server's --state, and its --database where that is elsewhere"
        raise StateError(f"{state / DATABASE}: no such file", mend=mend)
    shared = previous / BLOBS / WHOLE if previous and read_manifest(previous) else None
    engine = open_engine(database or sqlite_url(state / DATABASE))
    try:
        with new_folder(out, MANIFEST) as folder:
            manifest = _Copy(state / BLOBS / WHOLE, folder, shared).take(engine, [*_beside(state)])
            write_durably(folder / MANIFEST, manifest.model_dump_json(indent=1).encode(), mode=0o600)
    finally:
        engine.dispose()
    return manifest


class _Copy:
    """One backup being taken. blobs: the state's; shared: those of an earlier backup."""

    def __init__(self, blobs: Path, folder: Path, shared: Path | None) -> None:
        self._blobs = blobs
        self._folder = folder
        self._shared = shared
        self._held: dict[str, File] = {}

    def take(self, engine: Engine, beside: list[tuple[Path, str]]) -> Manifest:
        """Copies all of it. beside: files, and their paths in the backup."""
        round_, version, needed = self._consistent(engine)
        files = {name: copied(source, self._folder / name) for source, name in beside}
        for digest, file in self._held.items():
            if digest in needed:
                files[_inside(digest)] = file
            else:  # of a round that ended meanwhile
                (self._folder / _inside(digest)).unlink()
        files[DATABASE] = described(self._folder / DATABASE)
        return Manifest(format=FORMAT, taken=time.time(), round=round_, version=version, files=files)

    def _consistent(self, engine: Engine) -> tuple[int, int, frozenset[str]]:
        """The database, and every blob that it rests on; newest round, newest version, what is needed.

        A round that ends in between sweeps blobs away: then the database is copied again, and what it rests on now.
        """
        missing: list[str] = []
        for _ in range(ATTEMPTS):
            copy_to_file(engine, self._folder / DATABASE)
            round_, version, needed = _asked(self._folder / DATABASE)
            missing = [digest for digest in sorted(needed) if digest not in self._held and not self._hold(digest)]
            if not missing:
                return round_, version, needed
        raise StateError(f"{self._blobs}: blob {missing[0]} is needed and not there", mend=SEE)

    def _hold(self, digest: str) -> bool:
        """Takes a blob from the earlier backup or the state; False where it is in neither. Raises StateError."""
        target = self._folder / _inside(digest)
        found = linked(self._shared / digest[:2] / digest, target) if self._shared else None
        if found is None or found.sha256 != digest:
            target.unlink(missing_ok=True)
            source = self._blobs / digest[:2] / digest
            try:
                found = copied(source, target)
            except FileNotFoundError:
                return False
            if found.sha256 != digest:
                raise StateError(f"{source}: damaged: not the digest that it is named by", mend=SEE)
        self._held[digest] = found
        return True


def _asked(database: Path) -> tuple[int, int, frozenset[str]]:
    """Newest round, newest version, and the digests of all blobs that the state rests on."""
    store = SqlStore(open_engine(sqlite_url(database)))
    try:
        latest, founded, needed = next(iter(store.rounds(1)), None), store.federation(), store.needed()
        settings = FederationSettings.model_validate_json(founded[0]) if founded else None
        with_covariance = needed | ({settings.covariance_digest} if settings else set())
        return latest.round.number if latest else 0, store.latest_version(), with_covariance
    except ValidationError as error:
        raise StateError(f"{database}: the federation's settings cannot be read") from error
    finally:
        store.close()


def _inside(digest: str) -> str:
    return f"{BLOBS}/{WHOLE}/{digest[:2]}/{digest}"


def _beside(state: Path) -> Iterator[tuple[Path, str]]:
    """The CA, certificates and keys, and the note whose folder it is."""
    if (state / NOTE).is_file():
        yield state / NOTE, NOTE
    for each in sorted(files_in(state / PKI)):
        if not each.name.startswith("."):
            yield each, str(each.relative_to(state))
