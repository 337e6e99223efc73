"""Claims, verdicts, conflicts and retention in the SQL store, as they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, and_, desc, distinct, exists, func, or_, select

from collabedit.server import tables
from collabedit.server.claims import MANUAL, Decision, Kind
from collabedit.server.claims_table import decision_of_row, verdict_of_row
from collabedit.server.sql_identity import SqlIdentity, matches, put
from collabedit.server.store import Claimant, Conflict, Given, Retention

CONTRADICTS: Final = (Kind.KEEP.value, Kind.YIELD.value, Kind.UNDECIDED.value)


class SqlClaims(SqlIdentity):
    """The part of `SqlStore` that tells what parties claimed and what was decided about it."""

    def verdicts(self, client: str, after: int, limit: int) -> Sequence[Given]:
        """See Store.verdicts."""
        table = tables.VERDICTS
        query = select(table).where(table.c.client == client, table.c.number > after)
        with self._read() as connection:
            rows = connection.execute(query.order_by(table.c.number).limit(limit))
            return [Given(int(row.number), int(row.round), verdict_of_row(row)) for row in rows]

    def newest_verdicts(self) -> Mapping[str, int]:
        """See Store.newest_verdicts."""
        table = tables.VERDICTS
        with self._read() as connection:
            rows = connection.execute(select(table.c.client, func.max(table.c.number)).group_by(table.c.client))
            return {str(client): int(number) for client, number in rows}

    def conflicts(self, *, undecided: bool = False, limit: int = 0) -> Sequence[Conflict]:
        """See Store.conflicts."""
        given = tables.VERDICTS
        found = select(given.c.round, given.c.slot).where(given.c.kind.in_(CONTRADICTS), _contested())
        query = found.distinct().order_by(desc(given.c.round), given.c.slot)
        if undecided:
            query = query.where(given.c.kind == Kind.UNDECIDED.value, ~_decided_since())
        with self._read() as connection:
            rows = connection.execute(query.limit(limit) if limit else query).all()
            return [_conflict(connection, int(row.round), bytes(row.slot)) for row in rows]

    def conflict(self, slot: bytes) -> Conflict | None:
        """See Store.conflict."""
        given = tables.VERDICTS
        about = (given.c.slot == slot, given.c.kind.in_(CONTRADICTS), _contested())
        with self._read() as connection:
            round_ = connection.execute(select(func.max(given.c.round)).where(*about)).scalar()
            return None if round_ is None else _conflict(connection, int(round_), slot)

    def decisions(self) -> Mapping[bytes, Decision]:
        """See Store.decisions."""
        with self._read() as connection:
            found = [decision_of_row(row) for row in connection.execute(select(tables.DECISIONS))]
        return {each.slot: each for each in found}

    def reported(self, client: str, round_: int) -> bool:
        """See Store.reported."""
        table = tables.REPORTS
        query = select(table.c.round).where(matches(table, {"client": client, "round": round_}))
        with self._read() as connection:
            return connection.execute(query).first() is not None

    def retention(self, limit: int = 0) -> Sequence[Retention]:
        """See Store.retention."""
        told = tables.REPORTS
        last = select(told.c.version, told.c.client, func.max(told.c.round).label("round")).where(told.c.tested > 0)
        newest = last.group_by(told.c.version, told.c.client).subquery()
        same = and_(told.c.round == newest.c.round, told.c.client == newest.c.client)
        sums = (func.count(), func.sum(told.c.tested), func.sum(told.c.held))
        query = select(told.c.version, *sums).join(newest, same).group_by(told.c.version).order_by(desc(told.c.version))
        with self._read() as connection:
            rows = connection.execute(query.limit(limit) if limit else query).all()
        return [Retention(*map(int, row)) for row in reversed(rows)]

    def key_check(self) -> str:
        """See Store.key_check."""
        with self._read() as connection:
            return str(connection.execute(select(tables.KEY_CHECK.c.value)).scalar() or "")

    def pin_key_check(self, check: str, *, replace: bool = False) -> str:
        """See Store.pin_key_check."""
        with self._write() as connection:
            known = connection.execute(select(tables.KEY_CHECK.c.value)).scalar()
            if known is not None and not replace:
                return str(known)
            put(connection, tables.KEY_CHECK, {"id": 1}, {"value": check})
        return check


def _contested() -> Any:
    """Of a row of VERDICTS: in its round different facts were claimed for its slot."""
    claims, given = tables.CLAIMS, tables.VERDICTS
    same = and_(claims.c.round == given.c.round, claims.c.slot == given.c.slot)
    facts = select(func.count(distinct(claims.c.fact))).where(same).correlate(given).scalar_subquery()
    return facts > 1


def _decided_since() -> Any:
    """Of a row of VERDICTS: another one about the same claim came later."""
    given, later = tables.VERDICTS, tables.VERDICTS.alias()
    same = and_(later.c.client == given.c.client, later.c.slot == given.c.slot, later.c.fact == given.c.fact)
    return exists().where(same, later.c.number > given.c.number).correlate(given)


def _conflict(connection: Connection, round_: int, slot: bytes) -> Conflict:
    claims, given = tables.CLAIMS, tables.VERDICTS
    there = select(claims.c.client, claims.c.fact).where(claims.c.round == round_, claims.c.slot == slot)
    decided = and_(given.c.round > round_, given.c.policy == MANUAL)
    told = select(given).where(given.c.slot == slot, or_(given.c.round == round_, decided)).order_by(given.c.number)
    last = {(row.client, bytes(row.fact)): row for row in connection.execute(told)}
    rows = connection.execute(there.order_by(claims.c.place, claims.c.client, claims.c.position))
    names = dict.fromkeys((str(row.client), bytes(row.fact)) for row in rows)
    claimants = tuple(Claimant(*each, Kind(last[each].kind) if each in last else None) for each in names)
    kept = _kept(claimants, _decided_for(connection, slot))
    return Conflict(slot, round_, claimants, kept, _policy(last[each] for each in names if each in last))


def _kept(claimants: Sequence[Claimant], decided_for: str) -> str:
    """Whose fact is written: who was told so, or else who was there before the others and need not be told.

    Where all yield, it is to the party that an admin has decided for, which is not among them.
    """
    if any(each.kind is Kind.UNDECIDED for each in claimants):
        return ""
    kept = [each.client for kind in (Kind.KEEP, None) for each in claimants if each.kind is kind]
    return next(iter(kept), decided_for)


def _decided_for(connection: Connection, slot: bytes) -> str:
    decisions = tables.DECISIONS
    return str(connection.execute(select(decisions.c.client).where(decisions.c.slot == slot)).scalar() or "")


def _policy(told: Iterable[Any]) -> str:
    """The policy of the last verdict."""
    return str(max(told, key=lambda row: row.number).policy)
