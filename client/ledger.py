"""The ledger: every edit that this client ever read, what became of it, and what has been measured of it.

Whatever changes an edit's state goes through `_change`, which writes the row of the edit's life in the same
transaction.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import sqlalchemy as sa

from collabedit.client.contradictions import contradicts
from collabedit.client.edit_life import NEXT, WAITING, Cause, EditStatus, LedgerEntry, LifeRow
from collabedit.client.schema import edits, life, residuals, retention
from collabedit.client.state_database import StateDatabase
from collabedit.common.edits import Edit, Parsed

AT_ONCE: Final = 500  # keys in one statement
LINE_WENT: Final = "its line went from the file"
Residual = Literal["fresh", "held"]


class Ledger(StateDatabase):
    """What became of each edit; see `edit_life` for the states that it can be in."""

    # ------------------------------------------------------------------------------------------------ reading

    def _select(self, connection: sa.Connection, *where: sa.ColumnElement[bool]) -> list[LedgerEntry]:
        rows = connection.execute(sa.select(edits).where(*where).order_by(edits.c.seq))
        return [_entry(row) for row in rows]

    def _having(self, *statuses: EditStatus) -> list[LedgerEntry]:
        with self._transaction() as connection:
            return self._select(connection, having(statuses))

    def ledger(self) -> list[LedgerEntry]:
        """Every edit that this client ever read, in the order it first read them."""
        with self._transaction() as connection:
            return self._select(connection)

    def entries(self, keys: Iterable[str]) -> list[LedgerEntry]:
        """The ledger's entries of `keys`, in the ledger's order."""
        wanted = set(keys)
        return [each for each in self.ledger() if each.key in wanted]

    def waiting(self) -> list[LedgerEntry]:
        """The edits that wait for a round."""
        return self._having(*WAITING)

    def pending(self) -> list[LedgerEntry]:
        """The same as `waiting`."""
        return self.waiting()

    def batch(self) -> list[LedgerEntry]:
        """The edits of the round under way: fixed when it was entered, but for those that a verdict took out."""
        return self._having(EditStatus.ENTERED)

    def unscored(self) -> list[LedgerEntry]:
        """Merged edits that were not scored on the new weights yet."""
        return self._having(EditStatus.MERGED)

    def failed(self) -> list[LedgerEntry]:
        """Merged edits that did not take, and of which nothing has been decided."""
        return self._having(EditStatus.FAILED)

    def held(self) -> list[LedgerEntry]:
        """Edits whose retention is measured: those that held when they were last scored, and those forgotten since."""
        return self._having(EditStatus.VERIFIED, EditStatus.FORGOTTEN)

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
        found = reversed(list(zip(parsed.edits, parsed.lines, strict=True)))
        first = {edit.key: (edit, line) for edit, line in found}
        with self._transaction() as connection:
            known = {row.key: row for row in connection.execute(sa.select(edits.c.key, edits.c.status, edits.c.cause))}
            new = [key for key in first if key not in known]
            for key, (edit, line) in sorted(first.items(), key=lambda item: item[1][1]):
                said = {"id": edit.id, "line": line, "json": edit.model_dump_json(), "present": 1}
                if key in known:
                    connection.execute(edits.update().where(edits.c.key == key).values(**said))
                else:
                    connection.execute(edits.insert().values(key=key, status=EditStatus.PENDING.value, **said))
            for some in parts(new):
                self._write_life(connection, edits.c.key.in_(some))
            back = [key for key in first if key in known and _comes_back(known[key].cause, first[key][0], parsed.edits)]
            self._change(connection, back, EditStatus.PENDING, reason="", round=None)
            gone = [key for key in known if key not in first]
            for some in parts(gone):
                connection.execute(edits.update().where(edits.c.key.in_(some)).values(present=0))
            waited = [key for key in gone if EditStatus(known[key].status) in WAITING]
            self._withdraw(connection, waited, Cause.FILE, LINE_WENT)

    def reopen_known(self) -> None:
        """Lets edits wait again that were skipped because the model held them."""
        with self._transaction() as connection:
            known = connection.scalars(sa.select(edits.c.key).where(having([EditStatus.KNOWN]))).all()
            self._wait_again(connection, known, EditStatus.PENDING, reason="", version=None)

    # ------------------------------------------------------------------------------------------------ screening

    def unscreened(self, version: int) -> list[LedgerEntry]:
        """Waiting edits that were not screened on that version."""
        with self._transaction() as connection:
            return self._select(connection, *_unscreened(version))

    def is_screened(self, version: int) -> bool:
        """Whether there are none."""
        with self._transaction() as connection:
            return connection.execute(sa.select(edits.c.key).where(*_unscreened(version)).limit(1)).first() is None

    def screened(self, version: int, known: Mapping[str, str], measured: Mapping[str, Mapping[str, Any]]) -> None:
        """Notes that all waiting edits were screened on a version.

        known: of those that it holds already, which are skipped from now on, the reason by key. measured: what was
        found, by key.
        """
        with self._transaction() as connection:
            waiting = set(connection.scalars(sa.select(edits.c.key).where(having(WAITING))))
            connection.execute(edits.update().where(having(WAITING)).values(screened=version))
            for key in waiting & measured.keys():
                said = json.dumps(dict(measured[key]))
                connection.execute(edits.update().where(edits.c.key == key).values(measured=said))
            for key in sorted(waiting & known.keys()):
                self._change(connection, [key], EditStatus.KNOWN, version=version, reason=known[key])

    def record_residuals(self, kind: Residual, values: Mapping[str, float]) -> None:
        """Stores ‖z − h‖ by key: of edits as they were first searched for ("fresh"), or once merged ("held")."""
        with self._transaction() as connection:
            for key, value in values.items():
                connection.execute(residuals.delete().where(residuals.c.kind == kind, residuals.c.key == key))
                connection.execute(residuals.insert().values(kind=kind, key=key, value=value))

    def residual_history(self) -> tuple[list[float], list[float]]:
        """Every residual stored, fresh and held, each in the order in which they were."""
        order = sa.text("rowid")
        with self._transaction() as connection:
            rows = connection.execute(sa.select(residuals.c.kind, residuals.c.value).order_by(order)).all()
        return [row.value for row in rows if row.kind == "fresh"], [row.value for row in rows if row.kind == "held"]

    # ------------------------------------------------------------------------------------------------ scores

    def _score(self, connection: sa.Connection, scores: Mapping[str, Mapping[str, Any]]) -> None:
        for key, each in scores.items():
            connection.execute(edits.update().where(edits.c.key == key).values(scores=json.dumps(dict(each))))

    def _judge(self, connection: sa.Connection, scores: Mapping[str, Mapping[str, Any]]) -> None:
        """Merged edits are verified or have failed once they are scored."""
        merged = set(connection.scalars(sa.select(edits.c.key).where(having([EditStatus.MERGED]))))
        took = [key for key in scores if key in merged and scores[key].get("took")]
        failed = [key for key in scores if key in merged and not scores[key].get("took")]
        self._change(connection, took, EditStatus.VERIFIED, reason="")
        self._change(connection, failed, EditStatus.FAILED, reason="it did not take on the merged weights")

    def record_retention(
        self,
        version: int,
        held: Mapping[str, Mapping[str, Any]],
        forgotten: Mapping[str, Mapping[str, Any]],
        *,
        resubmit: bool,
    ) -> None:
        """Stores how edits of `held()` do on a version: the scores of those that hold, and of those that do not.

        One that was forgotten and holds again is verified again. resubmit: what is forgotten waits for a round again,
        as long as the file holds its line.
        """
        with self._transaction() as connection:
            connection.execute(retention.delete().where(retention.c.version == version))
            tested = len(held) + len(forgotten)
            connection.execute(retention.insert().values(version=version, tested=tested, held=len(held)))
            self._score(connection, held)
            self._score(connection, forgotten)
            rows = connection.execute(sa.select(edits.c.key, edits.c.status)).all()
            before = {row.key: row.status for row in rows}
            back = [key for key in held if before.get(key) == EditStatus.FORGOTTEN.value]
            self._change(connection, back, EditStatus.VERIFIED, reason="")
            lost = [key for key in forgotten if before.get(key) == EditStatus.VERIFIED.value]
            self._change(connection, lost, EditStatus.FORGOTTEN, reason=f"it holds no longer on version {version}")
            if resubmit:
                here = sa.and_(having([EditStatus.FORGOTTEN]), edits.c.present == 1)
                again = [key for key in connection.scalars(sa.select(edits.c.key).where(here)) if key in forgotten]
                self._change(connection, again, EditStatus.RESUBMITTED, reason=f"forgotten by version {version}")

    def retained(self, version: int) -> tuple[int, int] | None:
        """How many edits were looked at on a version, and how many of them held; None where none were yet."""
        with self._transaction() as connection:
            row = connection.execute(sa.select(retention).where(retention.c.version == version)).one_or_none()
        return (row.tested, row.held) if row is not None else None

    def _retention(self, connection: sa.Connection) -> list[tuple[int, int, int]]:
        rows = connection.execute(sa.select(retention).order_by(retention.c.version))
        return [(row.version, row.tested, row.held) for row in rows]


def having(statuses: Iterable[EditStatus]) -> sa.ColumnElement[bool]:
    """The condition that an edit is in one of those states."""
    return edits.c.status.in_([each.value for each in statuses])


def _unscreened(version: int) -> tuple[sa.ColumnElement[bool], ...]:
    return having(WAITING), sa.or_(edits.c.screened.is_(None), edits.c.screened != version)


def parts(keys: Iterable[str]) -> Iterator[list[str]]:
    """The keys, as many at a time as one statement may name."""
    every = list(keys)
    for start in range(0, len(every), AT_ONCE):
        yield every[start : start + AT_ONCE]


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
