"""The ledger: every edit that this client ever read, and what became of it.

Whatever changes an edit's state goes through `_change`, which writes the row of the edit's life in the same
transaction. What a client asks at every step is a count, which costs nothing that grows with the edits' texts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from collabedit.client.contradictions import contradicts
from collabedit.client.edit_life import NEXT, WAITING, Cause, EditStatus, LedgerEntry, LifeRow
from collabedit.client.schema import edits, life
from collabedit.client.state_database import StateDatabase
from collabedit.common.edits import Edit, Parsed

AT_ONCE: Final = 500  # keys in one statement
LINE_WENT: Final = "its line went from the file"


class Ledger(StateDatabase):
    """What became of each edit; see `edit_life` for the states that it can be in."""

    # ------------------------------------------------------------------------------------------------ reading

    def _select(self, connection: sa.Connection, *where: sa.ColumnElement[bool]) -> list[LedgerEntry]:
        rows = connection.execute(sa.select(edits).where(*where).order_by(edits.c.seq))
        return [_entry(row) for row in rows]

    def _having(self, *statuses: EditStatus) -> list[LedgerEntry]:
        with self._transaction() as connection:
            return self._select(connection, having(statuses))

    def _keys(self, connection: sa.Connection, statuses: Iterable[EditStatus]) -> list[str]:
        return list(connection.scalars(sa.select(edits.c.key).where(having(statuses)).order_by(edits.c.seq)))

    def count(self, statuses: Collection[EditStatus]) -> int:
        """How many edits are in one of those states."""
        with self._transaction() as connection:
            return connection.scalar(sa.select(sa.func.count()).select_from(edits).where(having(statuses))) or 0

    def keys(self, statuses: Collection[EditStatus]) -> frozenset[str]:
        """The keys of those."""
        with self._transaction() as connection:
            return frozenset(self._keys(connection, statuses))

    def ledger(self) -> list[LedgerEntry]:
        """Every edit that this client ever read, in the order it first read them."""
        with self._transaction() as connection:
            return self._select(connection)

    def entries(self, keys: Iterable[str]) -> list[LedgerEntry]:
        """The ledger's entries of `keys`, in the ledger's order."""
        with self._transaction() as connection:
            rows = [
                row for some in parts(keys) for row in connection.execute(sa.select(edits).where(edits.c.key.in_(some)))
            ]
        return [_entry(row) for row in sorted(rows, key=lambda row: row.seq)]

    def waiting(self) -> list[LedgerEntry]:
        """The edits that wait for a round."""
        return self._having(*WAITING)

    def batch(self) -> list[LedgerEntry]:
        """The edits of the round under way: fixed when it was entered, but for those that a verdict took out."""
        return self._having(EditStatus.ENTERED)

    def unscored(self) -> list[LedgerEntry]:
        """Merged edits that were not scored on the new weights yet."""
        return self._having(EditStatus.MERGED)

    def failed(self) -> list[LedgerEntry]:
        """Merged edits that did not take, and of which nothing has been decided."""
        return self._having(EditStatus.FAILED)

    def done(self) -> set[str]:
        """Keys of the edits that have entered a round or come to an end, other than by their line's going."""
        by_file = sa.and_(edits.c.cause.is_not(None), edits.c.cause == Cause.FILE.value)
        with self._transaction() as connection:
            of = (edits.c.status != EditStatus.PENDING.value, sa.not_(by_file))
            return set(connection.scalars(sa.select(edits.c.key).where(*of)))

    def life(self, key: str) -> list[LifeRow]:
        """What befell one edit, oldest first."""
        return self.lives([key]).get(key, [])

    def lives(self, keys: Iterable[str] | None = None) -> dict[str, list[LifeRow]]:
        """What befell each edit, oldest first; of all edits where no keys are given."""
        with self._transaction() as connection:
            return self._lives(connection, keys)

    def _lives(self, connection: sa.Connection, keys: Iterable[str] | None = None) -> dict[str, list[LifeRow]]:
        found: dict[str, list[LifeRow]] = {}
        wheres = [()] if keys is None else [(life.c.key.in_(some),) for some in parts(keys)]
        for where in wheres:
            for row in connection.execute(sa.select(life).where(*where).order_by(life.c.seq)):
                event = LifeRow(row.at, EditStatus(row.status), row.round, row.version, row.reason)
                found.setdefault(row.key, []).append(event)
        return found

    # ------------------------------------------------------------------------------------------------ changing

    def _change(self, connection: sa.Connection, keys: Iterable[str], to: EditStatus | None, **values: Any) -> None:
        """Gives edits their new state, None: the one they have, and each a row of its life.

        Raises AssertionError where `NEXT` does not have the change. A cause of withdrawal lasts no longer than that.
        """
        if to is not None:
            values = {"status": to.value, "cause": None, **values}
        for some in parts(keys):
            of = edits.c.key.in_(some)
            if to is not None:
                before = {EditStatus(each) for each in connection.scalars(sa.select(edits.c.status).where(of))}
                assert all(to in NEXT[each] for each in before), f"{before} → {to}"
            connection.execute(edits.update().where(of).values(**values))
            self._write_life(connection, of)

    def _write_life(self, connection: sa.Connection, of: sa.ColumnElement[bool]) -> None:
        now = sa.literal(time.time_ns() // 1_000_000)
        said = (edits.c.key, now, edits.c.status, edits.c.round, edits.c.version, edits.c.reason)
        columns = ["key", "at", "status", "round", "version", "reason"]
        connection.execute(life.insert().from_select(columns, sa.select(*said).where(of).order_by(edits.c.seq)))

    def _withdraw(self, connection: sa.Connection, keys: Iterable[str], cause: Cause, reason: str) -> None:
        self._change(connection, keys, EditStatus.WITHDRAWN, cause=cause.value, reason=reason)

    def _wait_again(self, connection: sa.Connection, keys: Iterable[str], to: EditStatus, **values: Any) -> None:
        """Lets edits wait, but those whose line has gone meanwhile: these are withdrawn."""
        for some in parts(keys):
            of = (edits.c.key.in_(some), edits.c.present == 0)
            gone = set(connection.scalars(sa.select(edits.c.key).where(*of)))
            self._change(connection, [key for key in some if key not in gone], to, **values)
            self._withdraw(connection, gone, Cause.FILE, LINE_WENT)

    # ------------------------------------------------------------------------------------------------ the file

    def take_in(self, parsed: Parsed) -> None:
        """Brings the ledger in line with the edits file: new edits wait, waiting ones whose line went are withdrawn.

        An edit is what it says: a changed line is a new edit. What is in a round or merged stays so. Details that the
        key leaves out (paraphrases, neighbours, id) follow the file.
        """
        first = _first_lines(parsed)
        with self._transaction() as connection:
            known = {row.key: row for row in connection.execute(sa.select(edits))}
            self._write_lines(connection, first, known)
            back = [key for key in first if key in known and _comes_back(known[key].cause, first[key][0], parsed.edits)]
            self._change(connection, back, EditStatus.PENDING, reason="", round=None)
            gone = [key for key in known if key not in first]
            for some in parts(gone):
                connection.execute(edits.update().where(edits.c.key.in_(some)).values(present=0))
            waited = [key for key in gone if EditStatus(known[key].status) in WAITING]
            self._withdraw(connection, waited, Cause.FILE, LINE_WENT)

    def _write_lines(
        self, connection: sa.Connection, first: Mapping[str, tuple[Edit, int]], known: Mapping[str, sa.Row[Any]]
    ) -> None:
        """Stores what the file says of each edit, where that is news; those that are not known yet wait from now on."""
        said = {
            key: {"id": edit.id, "line": line, "json": edit.model_dump_json(), "present": 1}
            for key, (edit, line) in first.items()
        }
        new = [key for key in said if key not in known]
        write_by_key(
            connection, {key: each for key, each in said.items() if key in known and _differs(known[key], each)}
        )
        if new:
            waits = EditStatus.PENDING.value
            connection.execute(edits.insert(), [{"key": key, "status": waits, **said[key]} for key in new])
        for some in parts(new):
            self._write_life(connection, edits.c.key.in_(some))

    def reopen_known(self, only: Collection[str] | None = None, reason: str = "") -> None:
        """Lets edits wait again that were skipped because the model held them. only: those of these keys; None: all."""
        with self._transaction() as connection:
            known = [key for key in self._keys(connection, [EditStatus.KNOWN]) if only is None or key in only]
            self._wait_again(connection, known, EditStatus.PENDING, reason=reason, version=None)


def having(statuses: Iterable[EditStatus]) -> sa.ColumnElement[bool]:
    """The condition that an edit is in one of those states."""
    return edits.c.status.in_([each.value for each in statuses])


def write_by_key(connection: sa.Connection, values: Mapping[str, Mapping[str, Any]]) -> None:
    """Updates edits, all in one statement. values: the new ones of each, by key; of the same columns for all."""
    rows = [{"of": key, **{f"new_{name}": value for name, value in each.items()}} for key, each in values.items()]
    if rows:
        columns: dict[str, Any] = {name: sa.bindparam(f"new_{name}") for name in next(iter(values.values()))}
        connection.execute(edits.update().where(edits.c.key == sa.bindparam("of")).values(**columns), rows)


def parts(keys: Iterable[str]) -> Iterator[list[str]]:
    """The keys, as many at a time as one statement may name."""
    every = list(keys)
    for start in range(0, len(every), AT_ONCE):
        yield every[start : start + AT_ONCE]


def _first_lines(parsed: Parsed) -> dict[str, tuple[Edit, int]]:
    """Each edit of the file and the first line that says it, by key, in the order of the lines."""
    found = reversed(list(zip(parsed.edits, parsed.lines, strict=True)))
    first = {edit.key: (edit, line) for edit, line in found}
    return dict(sorted(first.items(), key=lambda item: item[1][1]))


def _differs(row: sa.Row[Any], values: Mapping[str, Any]) -> bool:
    return any(row._mapping[name] != value for name, value in values.items())


def _comes_back(cause: str | None, edit: Edit, file: Sequence[Edit]) -> bool:
    """Whether its line brings an edit back that was withdrawn for that cause; None: it was not."""
    if cause == Cause.LATER.value:
        return not any(contradicts(edit, other) for other in file)
    return cause == Cause.FILE.value


def _entry(row: sa.Row[Any]) -> LedgerEntry:
    return LedgerEntry(
        edit=Edit.model_validate_json(row.json),
        line=row.line,
        status=EditStatus(row.status),
        round=row.round,
        version=row.version,
        reason=row.reason,
        scores=json.loads(row.scores) if row.scores else None,
        augmented=bool(row.augmented),
        measured=json.loads(row.measured) if row.measured else None,
        present=bool(row.present),
    )
