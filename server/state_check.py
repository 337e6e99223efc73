"""What is wrong with a state folder, a server's or a client's: `collab doctor`. Reads, and changes nothing of it."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import stat
from collections.abc import Generator, Iterator, Mapping, Set
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509

from collabedit.common.errors import AuditError, StateError
from collabedit.common.settings import FederationSettings
from collabedit.server.audit import Row, verify
from collabedit.server.belonging import NOTE
from collabedit.server.database import open_engine, other_release, sqlite_url
from collabedit.server.resting import resting
from collabedit.server.sql_store import SqlStore
from collabedit.server.state_folder import BLOBS, DATABASE

FREE: Final = 1 << 30  # bytes: less than this is told
SOON: Final = timedelta(days=30)  # certificates renew themselves before this; one that has not is told
ROWS: Final = 1000
WHOLE: Final = "whole"
ASIDE: Final = "damaged"
RESTORE: Final = "`collab restore` a backup"
RESTORE_STOPPED: Final = "stop what runs on it, and `collab restore` a backup"
OTHER: Final = "use that release's doctor, or start this one's server once"
COVARIANCE: Final = "the federation's covariance"
REMOVE: Final = "remove it and start the server again, which takes it from its own file"


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: where, what, and what to do about it."""

    where: str
    what: str
    mend: str


@dataclass(frozen=True)
class Known:
    """What a server's database says: what must be there, and what rests on each blob, by digest."""

    needed: Set[str] = frozenset()
    resting: Mapping[str, str] = field(default_factory=dict)

    def mend(self, digest: str) -> str:
        """What to do about a blob that is damaged or gone."""
        if self.resting.get(digest) == COVARIANCE or digest not in self.needed:
            return REMOVE if digest in self.needed else "remove it"
        return RESTORE

    def told(self, digest: str) -> str:
        """What rests on a blob, behind what is wrong with it."""
        uses = self.resting.get(digest, "")
        return f" ({uses})" if uses else " (nothing rests on it)" if digest not in self.needed else ""


def examine(state: Path, now: datetime | None = None, *, database: str | None = None) -> Iterator[Finding]:
    """Everything that is wrong, as it is found; every blob is read through. Raises StateError where no folder is.

    database: the URL of a server's, where it is not the SQLite file in the folder. now: for certificates.
    """
    if not state.is_dir():
        raise StateError(f"{state}: no such folder", mend="give the state folder of a server or a client with --state")
    for each in sorted(state.glob("*.sqlite")):
        yield from _database(each)
    if (state / NOTE).is_file() and not (state / DATABASE).is_file() and database is None:
        yield Finding(str(state / DATABASE), "not there", f"{RESTORE}; or give --database where it is elsewhere")
    known = Known()
    url = database or (sqlite_url(state / DATABASE) if (state / DATABASE).is_file() else "")
    if url:
        known = yield from _rows(url)
    yield from _blobs(state / BLOBS / WHOLE, known)
    gone = {each for each in known.needed if not _blob(state, each).is_file()}
    for digest in sorted(gone & _needed(url) if gone else ()):  # a running server may have swept some away meanwhile
        aside = (state / BLOBS / ASIDE / digest).is_file()
        said = "put aside: it was found damaged" if aside else "needed, and not there"
        yield Finding(str(_blob(state, digest)), f"{said}{known.told(digest)}", known.mend(digest))
    yield from _keys(state)
    yield from _certificates(state, now or datetime.now(UTC))
    free = shutil.disk_usage(state).free
    if free < FREE:
        yield Finding(str(state), f"{free:,} bytes are free on its disk", "make room, or see --keep-versions")


def _database(file: Path) -> Iterator[Finding]:
    """SQLite's own check of pages, indices and keys."""
    try:
        with closing(sqlite3.connect(file.resolve().as_uri() + "?mode=ro", uri=True)) as connection:
            said = [row[0] for row in connection.execute("PRAGMA integrity_check(10)")]
            said += [f"a row of {row[0]} names one of {row[2]} that is not there"
                     for row in connection.execute("PRAGMA foreign_key_check")]  # fmt: skip
    except sqlite3.Error as error:
        said = [str(error)]
    for line in said:
        if line != "ok":
            yield Finding(str(file), line, RESTORE_STOPPED)


def _rows(url: str) -> Generator[Finding, None, Known]:
    """Rows that cannot be read, an audit log that was changed; returns what the rows say."""
    engine = open_engine(url)
    store, where = SqlStore(engine), str(engine.url).removeprefix("sqlite:///")
    try:
        other = other_release(engine)
        if other is not None:
            yield Finding(where, f"its tables are those of another release ({other or 'none'})", OTHER)
            return Known()
        store.latest_round()  # with the claims in it, which the list is without
        uses = resting((each.round for each in store.rounds()), store.pruned())
        covariance = _covariance(store)
        known = Known(store.needed() | covariance, {**dict.fromkeys(covariance, COVARIANCE), **uses})
        verify(_audit(store))
        return known
    except AuditError as error:
        yield Finding(where, f"the audit log: {error.what}", "find out who could write there; keep it as it is")
        return known
    except (StateError, ValueError) as error:
        told = error.what if isinstance(error, StateError) else f"the federation's settings cannot be read: {error}"
        yield Finding(where, " ".join(told.split()), RESTORE)
        return Known()
    finally:
        store.close()


def _needed(url: str) -> Set[str]:
    store = SqlStore(open_engine(url))
    try:
        return store.needed() | _covariance(store)
    finally:
        store.close()


def _covariance(store: SqlStore) -> Set[str]:
    founded = store.federation()
    return {FederationSettings.model_validate_json(founded[0]).covariance_digest} if founded else set()


def _audit(store: SqlStore) -> Iterator[Row]:
    after = 0
    while rows := store.audit(after, ROWS):
        yield from rows
        after = rows[-1].sequence


def _blob(state: Path, digest: str) -> Path:
    return state / BLOBS / WHOLE / digest[:2] / digest


def _blobs(folder: Path, known: Known) -> Iterator[Finding]:
    """Blobs that differ from the digests that they are named by."""
    for file in sorted(folder.glob("*/*")):
        try:
            with file.open("rb") as handle:
                agrees = hashlib.file_digest(handle, "sha256").hexdigest() == file.name
        except FileNotFoundError:  # swept away meanwhile
            continue
        except OSError as error:
            yield Finding(str(file), f"cannot be read: {error.strerror}{known.told(file.name)}", known.mend(file.name))
            continue
        if not agrees:
            yield Finding(
                str(file), f"damaged: not the digest that it is named by{known.told(file.name)}", known.mend(file.name)
            )


def _keys(state: Path) -> Iterator[Finding]:
    for key in sorted(state.rglob("*.key")):
        mode = stat.S_IMODE(key.stat().st_mode)
        if mode & 0o077:
            yield Finding(str(key), f"a private key with mode {mode:04o}: others can read it", f"chmod 600 {key}")


def _certificates(state: Path, now: datetime) -> Iterator[Finding]:
    for file in sorted(state.rglob("*.pem")):
        try:
            found = x509.load_pem_x509_certificates(file.read_bytes())
        except ValueError:
            if b"CERTIFICATE-----" in file.read_bytes() and b"REQUEST" not in file.read_bytes():
                yield Finding(str(file), "not a certificate that can be read", "enrol again, or restore it")
            continue
        until = min(each.not_valid_after_utc for each in found)
        if until < now + SOON:
            word = "ended" if until < now else "ends"
            yield Finding(
                str(file), f"its certificate {word} on {until:%Y-%m-%d}", "`collab pki renew`, or enrol again"
            )
