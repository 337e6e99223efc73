"""Claims, verdicts, conflicts and retention in the SQL store, as they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import and_, desc, func, select, true

from collabedit.server import sql_conflicts, tables
from collabedit.server.claims import Decision
from collabedit.server.claims_table import decision_of_row, verdict_of_row
from collabedit.server.sql_identity import SqlIdentity, matches, put
from collabedit.server.store import Conflict, Given, Retention


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
        """See Store.newest_verdicts. From one client to the next by the index: verdicts are many, clients few."""
        table = tables.VERDICTS
        clients = select(func.min(table.c.client).label("client")).cte(recursive=True)
        following = select(func.min(table.c.client)).where(table.c.client > clients.c.client).scalar_subquery()
        clients = clients.union_all(select(following).where(clients.c.client.is_not(None)))
        newest = select(func.max(table.c.number)).where(table.c.client == clients.c.client).scalar_subquery()
        with self._read() as connection:
            rows = connection.execute(select(clients.c.client, newest).where(clients.c.client.is_not(None)))
            return {str(client): int(number) for client, number in rows}

    def conflicts(self, *, undecided: bool = False, limit: int = 0) -> Sequence[Conflict]:
        """See Store.conflicts."""
        with self._read() as connection:
            return sql_conflicts.newest(connection, undecided=undecided, limit=limit)

    def conflict(self, slot: bytes) -> Conflict | None:
        """See Store.conflict."""
        with self._read() as connection:
            return sql_conflicts.newest_about(connection, slot)

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
        versions = select(told.c.version).where(told.c.tested > 0).distinct().order_by(desc(told.c.version))
        shown = and_(told.c.tested > 0, told.c.version.in_(versions.limit(limit)) if limit else true())
        last = select(told.c.version, told.c.client, func.max(told.c.round).label("round")).where(shown)
        newest = last.group_by(told.c.version, told.c.client).subquery()
        same = and_(told.c.round == newest.c.round, told.c.client == newest.c.client)
        sums = (func.count(), func.sum(told.c.tested), func.sum(told.c.held))
        query = select(told.c.version, *sums).join(newest, same).group_by(told.c.version).order_by(told.c.version)
        with self._read() as connection:
            return [Retention(*map(int, row)) for row in connection.execute(query)]

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
