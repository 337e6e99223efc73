"""The tables of the client's database, and the migrations that lead to them.

The version is SQLite's own `user_version`. A migration and the version it leads to are one transaction: a migration
that fails leaves the database as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from collabedit.client.migrations import MIGRATIONS, Migration
from collabedit.common.credentials import PRIVATE
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


def open_database(file: Path, migrations: Sequence[Migration] = MIGRATIONS) -> sa.Engine:
    """The database at `file`, made or brought up to date.

    Raises StateError where it is no database of ours, comes from a later release, or cannot be opened.
    """
    with suppress(OSError):  # which SQLite tells better
        file.touch(PRIVATE, exist_ok=True)  # it holds the edits in clear; what SQLite puts beside it gets its rights
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
