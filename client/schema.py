"""The tables of the client's database, and the migrations that lead to them.

The version is SQLite's own `user_version`. A migration and the version it leads to are one transaction: a migration
that fails leaves the database as it was. Migrations are never edited after a release; a change is a new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import sqlalchemy as sa

from collabedit.common.errors import StateError

metadata = sa.MetaData()

facts = sa.Table(
    "facts", metadata, sa.Column("name", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False)
)

edits = sa.Table(
    "edits",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("key", sa.Text, nullable=False, unique=True),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("line", sa.Integer, nullable=False),
    sa.Column("json", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("round", sa.Integer),
    sa.Column("version", sa.Integer),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),
    sa.Column("scores", sa.Text),
    sa.Column("cause", sa.Text),
    sa.Column("augmented", sa.Integer, nullable=False, server_default="0"),
    sa.Column("present", sa.Integer, nullable=False, server_default="1"),
    sa.Column("screened", sa.Integer),
    sa.Column("measured", sa.Text),
)

life = sa.Table(
    "life",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("at", sa.Integer, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("round", sa.Integer),
    sa.Column("version", sa.Integer),
    sa.Column("reason", sa.Text, nullable=False),
)

retention = sa.Table(
    "retention",
    metadata,
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("tested", sa.Integer, nullable=False),
    sa.Column("held", sa.Integer, nullable=False),
)

residuals = sa.Table(
    "residuals",
    metadata,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Float, nullable=False),
)

# The blinded names under which edits were told to the server: a verdict names them, also once the key is another.
claims = sa.Table(
    "claims",
    metadata,
    sa.Column("slot", sa.LargeBinary, primary_key=True),
    sa.Column("fact", sa.LargeBinary, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
)

contributions = sa.Table(
    "contributions",
    metadata,
    sa.Column("round", sa.Integer, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("layer", sa.Integer, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False),
)

rounds = sa.Table(
    "rounds",
    metadata,
    sa.Column("round", sa.Integer, primary_key=True),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("version", sa.Integer),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("edits", sa.Integer, nullable=False),
    sa.Column("scores", sa.Text),
)

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


def open_database(file: Path, migrations: Sequence[Migration] = MIGRATIONS) -> sa.Engine:
    """The database at `file`, made or brought up to date.

    Raises StateError where it is no database of ours, comes from a later release, or cannot be opened.
    """
    engine = sa.create_engine(f"sqlite:///{file}", poolclass=sa.pool.StaticPool)
    sa.event.listen(engine, "connect", _configure)
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    try:
        for target in range(len(migrations)):
            _migrate(engine, file, target, migrations)
    except sa.exc.DatabaseError as error:
        engine.dispose()
        raise StateError(f"{file}: {error.orig}", mend="give another folder with --state, or mend this one") from error
    except StateError:
        engine.dispose()
        raise
    return engine


def open_for_reading(file: Path) -> sa.Engine:
    """The database at `file`, to be read while a client may run on it. It is neither made nor brought up to date.

    Raises StateError where there is none, or one of another release.
    """
    if not file.is_file():
        raise StateError(f"{file}: no ledger", mend="give the folder of a client that has run with --state")
    engine = sa.create_engine(f"sqlite:///file:{quote(str(file))}?mode=ro&uri=true", poolclass=sa.pool.StaticPool)
    sa.event.listen(engine, "connect", _configure_reading)
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    try:
        with engine.begin() as connection:
            held = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    except sa.exc.DatabaseError as error:
        engine.dispose()
        raise StateError(f"{file}: {error.orig}", mend="give another folder with --state, or mend this one") from error
    if held != len(MIGRATIONS):
        engine.dispose()
        raise StateError(
            f"{file}: written by another release of collabedit (version {held}, this one reads {len(MIGRATIONS)})",
            mend="start collab-client of this release on the folder once, or read it with the release that runs on it",
        )
    return engine


def _configure_reading(connection: Any, _: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA busy_timeout=5000")


def _configure(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions begin where we say so, schema changes included
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000"):
        connection.execute(f"PRAGMA {pragma}")


def _migrate(engine: sa.Engine, file: Path, target: int, migrations: Sequence[Migration]) -> None:
    with engine.begin() as connection:
        held = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        if held > len(migrations):
            raise StateError(
                f"{file}: written by a later collabedit (version {held}, this one knows {len(migrations)})",
                mend="update collabedit, or give another folder with --state",
            )
        if held == target:
            for statement in migrations[target]:
                connection.exec_driver_sql(statement)
            connection.exec_driver_sql(f"PRAGMA user_version = {target + 1}")
