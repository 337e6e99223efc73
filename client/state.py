"""The client's durable state: its ledger of edits, its place in the round, and what became of past rounds.

Every method is one transaction on SQLite in WAL mode with full synchronisation: after it returns the change survives a
kill, before it nothing has changed. Only one thread of one process uses it (see `StateFolder.locked`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from collabedit.client import schema
from collabedit.client.snapshot import ENDED, Outcome
from collabedit.common.edits import Edit, Parsed
from collabedit.common.errors import StateError


class EditStatus(Enum):
    """What became of one edit."""

    PENDING = "pending"  # waits for a round
    ENTERED = "entered"  # part of the round under way
    MERGED = "merged"  # in the published weights of `version`
    WITHDRAWN = "withdrawn"  # its line went before it was merged


@dataclass(frozen=True)
class LedgerEntry:
    """One edit and what became of it. `reason`: why its last round did not merge it. `scores`: on the new weights."""

    edit: Edit
    line: int
    status: EditStatus
    round: int | None = None
    version: int | None = None
    reason: str = ""
    scores: Mapping[str, Any] | None = None

    @property
    def key(self) -> str:
        """What the edit says, as a digest."""
        return self.edit.key


@dataclass(frozen=True)
class RoundEntry:
    """One round that this client was in: how it ended, with how many of our edits, and their mean scores."""

    round: int
    outcome: str
    version: int | None
    reason: str
    edits: int
    scores: Mapping[str, Any] | None


def _entry(row: sa.Row[Any]) -> LedgerEntry:
    return LedgerEntry(
        edit=Edit.model_validate_json(row.json),
        line=row.line,
        status=EditStatus(row.status),
        round=row.round,
        version=row.version,
        reason=row.reason,
        scores=json.loads(row.scores) if row.scores else None,
    )


class ClientState:
    """The database of one state folder. Use as a context manager."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._engine = schema.open_database(file)

    def __enter__(self) -> ClientState:
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

    # ------------------------------------------------------------------------------------------------ identity

    def _note(self, connection: sa.Connection, name: str, value: str | None) -> None:
        connection.execute(schema.facts.delete().where(schema.facts.c.name == name))
        if value is not None:
            connection.execute(schema.facts.insert().values(name=name, value=value))

    def _fact(self, connection: sa.Connection, name: str) -> str | None:
        return connection.execute(sa.select(schema.facts.c.value).where(schema.facts.c.name == name)).scalar()

    @property
    def federation(self) -> str | None:
        """The federation that this folder belongs to; None before the first joining."""
        with self._transaction() as connection:
            return self._fact(connection, "federation")

    def demand(self, federation: str) -> None:
        """Raises StateError where the folder belongs to another federation."""
        held = self.federation
        if held not in (None, federation):
            raise StateError(
                f"{self._file.parent}: the state belongs to the federation {held}, the server to {federation}",
                mend="give each federation a folder of its own with --state, or the other server with --server",
            )

    def bind(self, federation: str) -> None:
        """Makes the folder the federation's, for good. Raises StateError where it belongs to another."""
        self.demand(federation)
        with self._transaction() as connection:
            self._note(connection, "federation", federation)

    # ------------------------------------------------------------------------------------------------ edits

    def take_in(self, parsed: Parsed) -> None:
        """Brings the ledger in line with the edits file: new edits wait, edits whose line went are withdrawn.

        An edit is what it says: a changed line is a new edit. What is in a round or merged stays so. Details that the
        key leaves out (paraphrases, neighbours, id) follow the file.
        """
        first = {edit.key: (edit, line) for edit, line in reversed(list(zip(parsed.edits, parsed.lines, strict=True)))}
        table = schema.edits
        with self._transaction() as connection:
            known = {row.key: row.status for row in connection.execute(sa.select(table.c.key, table.c.status))}
            for key, (edit, line) in sorted(first.items(), key=lambda item: item[1][1]):
                said = {"id": edit.id, "line": line, "json": edit.model_dump_json()}
                if key not in known:
                    connection.execute(table.insert().values(key=key, status=EditStatus.PENDING.value, **said))
                    continue
                if known[key] == EditStatus.WITHDRAWN.value:
                    said["status"] = EditStatus.PENDING.value
                connection.execute(table.update().where(table.c.key == key).values(**said))
            gone = [key for key, status in known.items() if status == EditStatus.PENDING.value and key not in first]
            for key in gone:
                connection.execute(table.update().where(table.c.key == key).values(status=EditStatus.WITHDRAWN.value))

    def _select(self, *where: sa.ColumnElement[bool]) -> list[LedgerEntry]:
        with self._transaction() as connection:
            rows = connection.execute(sa.select(schema.edits).where(*where).order_by(schema.edits.c.seq))
            return [_entry(row) for row in rows]

    def ledger(self) -> list[LedgerEntry]:
        """Every edit that this client ever read, in the order it first read them."""
        return self._select()

    def entries(self, keys: Iterable[str]) -> list[LedgerEntry]:
        """The ledger's entries of `keys`, in the ledger's order."""
        wanted = set(keys)
        return [each for each in self.ledger() if each.key in wanted]

    def pending(self) -> list[LedgerEntry]:
        """The edits that wait for a round."""
        return self._select(schema.edits.c.status == EditStatus.PENDING.value)

    def unscored(self) -> list[LedgerEntry]:
        """Merged edits that were not scored on the new weights yet."""
        return self._select(schema.edits.c.status == EditStatus.MERGED.value, schema.edits.c.scores.is_(None))

    # ------------------------------------------------------------------------------------------------ rounds

    @property
    def round(self) -> int | None:
        """The round that this client entered and whose outcome it has not noted yet."""
        with self._transaction() as connection:
            held = self._fact(connection, "round")
            return int(held) if held is not None else None

    def batch(self) -> list[LedgerEntry]:
        """The edits of the round under way: fixed when it was entered, whatever the file says since."""
        return self._select(schema.edits.c.status == EditStatus.ENTERED.value)

    def enter(self, round_: int) -> list[LedgerEntry]:
        """Puts every waiting edit into `round_` and returns them; entering the same round again changes nothing."""
        with self._transaction() as connection:
            if self._fact(connection, "round") is None:
                self._note(connection, "round", str(round_))
                pending = schema.edits.c.status == EditStatus.PENDING.value
                connection.execute(
                    schema.edits.update()
                    .where(pending)
                    .values(status=EditStatus.ENTERED.value, round=round_, reason="")
                )
        return self.batch()

    def settle(self, outcome: Outcome) -> None:
        """Notes how the round ended: its edits are merged, or wait again with the reason."""
        merged = outcome.merged
        version = outcome.version if merged else None
        status = EditStatus.MERGED if merged else EditStatus.PENDING
        edits, rounds = schema.edits, schema.rounds
        with self._transaction() as connection:
            entered = edits.c.status == EditStatus.ENTERED.value
            count = connection.execute(sa.select(sa.func.count()).select_from(edits).where(entered)).scalar_one()
            values = {"status": status.value, "version": version, "reason": "" if merged else outcome.reason}
            connection.execute(edits.update().where(entered).values(**values))
            connection.execute(rounds.delete().where(rounds.c.round == outcome.round))
            name = "merged" if merged else outcome.phase.name.lower() if outcome.phase in ENDED else "out"
            connection.execute(
                rounds.insert().values(
                    round=outcome.round, outcome=name, version=version, reason=outcome.reason, edits=count
                )
            )
            connection.execute(schema.contributions.delete())
            self._note(connection, "round", None)

    def release(self) -> None:
        """The round did not take us in: its edits wait again as if it had not been."""
        with self._transaction() as connection:
            entered = schema.edits.c.status == EditStatus.ENTERED.value
            connection.execute(schema.edits.update().where(entered).values(status=EditStatus.PENDING.value, round=None))
            connection.execute(schema.contributions.delete())
            self._note(connection, "round", None)

    def rounds(self) -> list[RoundEntry]:
        """The rounds that this client was in, oldest first."""
        with self._transaction() as connection:
            rows = connection.execute(sa.select(schema.rounds).order_by(schema.rounds.c.round))
            return [
                RoundEntry(
                    each.round,
                    each.outcome,
                    each.version,
                    each.reason,
                    each.edits,
                    json.loads(each.scores) if each.scores else None,
                )
                for each in rows
            ]

    def record_scores(self, scores: Mapping[str, Mapping[str, Any]], rounds: Mapping[int, Mapping[str, Any]]) -> None:
        """Stores the scores of edits by key, and the means by round."""
        with self._transaction() as connection:
            for key, each in scores.items():
                row = schema.edits.c.key == key
                connection.execute(schema.edits.update().where(row).values(scores=json.dumps(dict(each))))
            for number, mean in rounds.items():
                row = schema.rounds.c.round == number
                connection.execute(schema.rounds.update().where(row).values(scores=json.dumps(dict(mean))))

    # ------------------------------------------------------------------------------------------------ contributions

    def record_contribution(self, round_: int, attempt: int, layer: int, digest: str) -> None:
        """Notes that the contribution of this layer lies in the outbox, whole."""
        table = schema.contributions
        with self._transaction() as connection:
            here = (table.c.round == round_, table.c.attempt == attempt, table.c.layer == layer)
            connection.execute(table.delete().where(*here))
            connection.execute(table.insert().values(round=round_, attempt=attempt, layer=layer, digest=digest))

    def contributions(self, round_: int, attempt: int) -> dict[int, str]:
        """The content addresses of this attempt's contributions, by layer."""
        table = schema.contributions
        with self._transaction() as connection:
            rows = connection.execute(sa.select(table).where(table.c.round == round_, table.c.attempt == attempt))
            return {row.layer: row.digest for row in rows}
