"""The client's database as its parts use it: transactions, and facts by name.

Every method of a part is one transaction on SQLite in WAL mode with full synchronisation: after it returns the change
survives a kill, before it nothing has changed. Only one thread of one process writes (see `StateFolder.locked`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import sqlalchemy as sa

from collabedit.client import schema
from collabedit.common.errors import StateError


class StateDatabase:
    """The database of one state folder. Use as a context manager."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._engine = schema.open_database(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except sa.exc.OperationalError as error:
            raise StateError(f"{self._file}: {error.orig}", mend="make room, or mend the folder's rights") from error

    def _note(self, connection: sa.Connection, name: str, value: str | None) -> None:
        connection.execute(schema.facts.delete().where(schema.facts.c.name == name))
        if value is not None:
            connection.execute(schema.facts.insert().values(name=name, value=value))

    def _fact(self, connection: sa.Connection, name: str) -> str | None:
        return connection.execute(sa.select(schema.facts.c.value).where(schema.facts.c.name == name)).scalar()

    def _number(self, connection: sa.Connection, name: str) -> int:
        """A fact that is a number, 0 where it has not been noted."""
        return int(self._fact(connection, name) or 0)
