"""The migrations that lead to the client's database, as SQL: what its tables are made by, and how many there were.

They are never edited after a release; a change is a new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

Migration = Sequence[str]
MIGRATIONS: Final[tuple[Migration, ...]] = (
    (
        "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
        "CREATE TABLE edits (seq INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, id TEXT NOT NULL,"
        " line INTEGER NOT NULL, json TEXT NOT NULL, status TEXT NOT NULL, round INTEGER, version INTEGER,"
        " reason TEXT NOT NULL DEFAULT '', scores TEXT)",
        "CREATE TABLE contributions (round INTEGER NOT NULL, attempt INTEGER NOT NULL, layer INTEGER NOT NULL,"
        " digest TEXT NOT NULL, PRIMARY KEY (round, attempt, layer))",
        "CREATE TABLE rounds (round INTEGER PRIMARY KEY, outcome TEXT NOT NULL, version INTEGER, reason TEXT NOT NULL,"
        " edits INTEGER NOT NULL, scores TEXT)",
    ),
    (
        "ALTER TABLE edits ADD COLUMN cause TEXT",
        "ALTER TABLE edits ADD COLUMN augmented INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE edits ADD COLUMN present INTEGER NOT NULL DEFAULT 1",
        "ALTER TABLE edits ADD COLUMN screened INTEGER",
        "ALTER TABLE edits ADD COLUMN measured TEXT",
        "CREATE TABLE life (seq INTEGER PRIMARY KEY, key TEXT NOT NULL, at INTEGER NOT NULL, status TEXT NOT NULL,"
        " round INTEGER, version INTEGER, reason TEXT NOT NULL)",
        "CREATE INDEX life_of ON life (key, seq)",
        "CREATE TABLE retention (version INTEGER PRIMARY KEY, tested INTEGER NOT NULL, held INTEGER NOT NULL)",
        "CREATE TABLE claims (slot BLOB NOT NULL, fact BLOB NOT NULL, key TEXT NOT NULL,"
        " PRIMARY KEY (slot, fact, key))",
        "CREATE TABLE residuals (kind TEXT NOT NULL, key TEXT NOT NULL, value FLOAT NOT NULL, PRIMARY KEY (kind, key))",
        "UPDATE edits SET status = CASE json_extract(scores, '$.took') WHEN 1 THEN 'verified' ELSE 'failed' END"
        " WHERE status = 'merged' AND scores IS NOT NULL",
        "UPDATE edits SET cause = 'file', reason = 'its line went from the file' WHERE status = 'withdrawn'",
        # When an edit came to be what it is, releases before this one did not note.
        "INSERT INTO life (key, at, status, round, version, reason)"
        " SELECT key, CAST(strftime('%s', 'now') AS INTEGER) * 1000, status, round, version, reason FROM edits"
        " ORDER BY seq",
    ),
    # What a client asks at every step is told by the index alone, without a look at the edits' texts.
    ("CREATE INDEX edits_by_status ON edits (status, screened)",),
)
