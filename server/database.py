"""The database's engine: SQLite in WAL mode beside the blobs, or another by URL; brought up to date at every start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError

from collabedit.common.errors import StateError, UsageError

WRITES = "collabedit_writes"
PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",  # a commit has reached the disk when it returns
    "PRAGMA foreign_keys=ON",
    "PRAGMA busy_timeout=30000",
)


def sqlite_url(file: Path) -> str:
    """The URL of an SQLite database in a file."""
    return f"sqlite:///{file}"


def open_engine(url: str) -> Engine:
    """An engine for a database URL. Raises UsageError for a URL that names no known kind of database."""
    try:
        engine = create_engine(make_url(url))
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise UsageError(f"--database {url}: {error}", mend="for example sqlite:////var/lib/collabedit.db") from error
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine)
    return engine


def _prepare_sqlite(engine: Engine) -> None:
    """SQLite's driver opens transactions late, and not before DDL: here SQLAlchemy's `begin` does, for all of it."""

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        for pragma in PRAGMAS:
            connection.execute(pragma)

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get(WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def migrate(engine: Engine, *, migrations: str = "collabedit.server:migrations") -> None:
    """Brings the tables up to date, all steps in one transaction: a step that fails leaves everything as it was.

    Raises StateError where the database is damaged, or was written by a newer collabedit.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", migrations)
    try:
        with engine.execution_options(**{WRITES: True}).begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        mend = "it was written by a newer collabedit: upgrade this one, or give another --state"
        raise StateError(f"{engine.url}: {error}", mend=mend) from error
    except DatabaseError as error:
        mend = "the database is damaged or cannot be written: restore the state folder, or give another --state"
        raise StateError(f"{engine.url}: {error.orig}", mend=mend) from error
