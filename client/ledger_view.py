"""A client's ledger as one object, read beside a client at work; nothing can be written by way of it.

By sqlite3 alone: whoever asks what became of an edit does not wait for the libraries that a client works with.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from collabedit.client.edit_life import EditStatus
from collabedit.client.migrations import MIGRATIONS
from collabedit.common.errors import StateError

BUSY_SECONDS: Final = 5  # of one transaction of the client at work

COUNTS: Final = "SELECT status, count(*) FROM edits GROUP BY status"
EDITS: Final = (
    "SELECT id, line, key, json, present, status, round, version, reason, augmented, scores, measured"
    " FROM edits {} ORDER BY seq"
)
OF_THOSE: Final = "WHERE key IN (SELECT key FROM edits {})"
LIVES: Final = "SELECT key, at, status, round, version, reason FROM life {} ORDER BY seq"
ROUNDS: Final = "SELECT round, outcome, version, reason, edits, scores FROM rounds ORDER BY round"
RETENTION: Final = "SELECT version, tested, held FROM retention ORDER BY version"


def ledger_object(file: Path, only: Collection[str] = (), *, lives: bool = True) -> dict[str, Any]:
    """What a ledger says at one instant: the object that `collab-client status --json` prints.

    only: the edits in these states alone, by the states' names; none: all. lives: with each edit's whole life.
    Raises StateError where there is no ledger, or one of another release.
    """
    chosen = f"WHERE status IN ({', '.join('?' * len(only))})" if only else ""
    of_those = OF_THOSE.format(chosen) if only else ""
    with _reading(file) as connection:
        facts = dict(connection.execute("SELECT name, value FROM facts WHERE name IN ('federation', 'round')"))
        counts = dict(connection.execute(COUNTS))
        edits = [_edit(*row) for row in connection.execute(EDITS.format(chosen), tuple(only))]
        if lives:
            _tell_lives(edits, connection.execute(LIVES.format(of_those), tuple(only)))
        return {
            "federation": facts.get("federation"),
            "round": int(facts["round"]) if "round" in facts else None,
            "counts": {each.value: counts.get(each.value, 0) for each in EditStatus},
            "edits": edits,
            "rounds": [{**row, "scores": _loaded(row["scores"])} for row in map(dict, connection.execute(ROUNDS))],
            "retention": [dict(row) for row in connection.execute(RETENTION)],
        }


@contextmanager
def _reading(file: Path) -> Iterator[sqlite3.Connection]:
    """The database within one transaction, which a client at work neither waits for nor is seen to change."""
    if not file.is_file():
        raise StateError(f"{file}: no ledger", mend="give the folder of a client that has run with --state")
    try:
        uri = f"file:{quote(str(file))}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("BEGIN")
            _check_release(file, connection.execute("PRAGMA user_version").fetchone()[0])
            yield connection
    except sqlite3.DatabaseError as error:
        raise StateError(f"{file}: {error}", mend="give another folder with --state, or mend this one") from error


def _check_release(file: Path, held: int) -> None:
    if held != len(MIGRATIONS):
        raise StateError(
            f"{file}: written by another release of collabedit (version {held}, this one reads {len(MIGRATIONS)})",
            mend="start collab-client of this release on the folder once, or read it with the release that runs on it",
        )


def _edit(
    id_: str, line: int, key: str, edit: str, present: int, status: str, round_: int | None, version: int | None,
    reason: str, augmented: int, scores: str | None, measured: str | None,
) -> dict[str, Any]:  # fmt: skip
    """As `client.report.edit_row`."""
    said = json.loads(edit)
    return {
        "id": id_,
        "line": line,
        "key": key,
        "subject": said["subject"],
        "target_new": said["target_new"],
        "present": bool(present),
        "status": status,
        "round": round_,
        "version": version,
        "reason": reason,
        "augmented": bool(augmented),
        "scores": _loaded(scores),
        "measured": _loaded(measured),
    }


def _tell_lives(edits: Sequence[dict[str, Any]], rows: Iterable[tuple[Any, ...]]) -> None:
    """Gives each edit its events, oldest first. What befell many edits at once has one moment."""
    by_key: dict[str, list[dict[str, Any]]] = {each["key"]: each.setdefault("life", []) for each in edits}
    moments: dict[int, str] = {}
    for key, at, status, round_, version, reason in rows:
        said = moments.get(at) or moments.setdefault(at, _moment(at))
        by_key[key].append({"at": said, "status": status, "round": round_, "version": version, "reason": reason})


def _moment(at_ms: int) -> str:
    """Unix time in milliseconds as UTC: `2026-11-21T14:07:00.250Z`."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _loaded(text: str | None) -> Any:
    return json.loads(text) if text else None
