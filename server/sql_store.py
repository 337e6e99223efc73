"""The store over an SQL database (SQLAlchemy Core)."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import and_, delete, desc, func, insert, or_, select, update

from collabedit.server import audit_table, tables
from collabedit.server.audit import SERVER, entry
from collabedit.server.rounds import LayerWeights, Phase, Round
from collabedit.server.rounds_table import read_layer, read_round, write_round
from collabedit.server.sql_claims import SqlClaims
from collabedit.server.sql_identity import matches
from collabedit.server.store import Recorded

MOST_VERSIONS = 1 << 62  # SQLite takes an offset only beside a limit


class SqlStore(SqlClaims):
    """`collabedit.server.store.Store` over an engine whose tables are up to date. clock: Unix seconds."""

    # ------------------------------------------------------------------------------------------------ federation

    def federation(self) -> tuple[str, str] | None:
        """See Store.federation."""
        with self._read() as connection:
            row = connection.execute(select(tables.FEDERATION)).first()
        return (row.settings, row.sources) if row else None

    def found(self, settings: str, sources: str) -> None:
        """See Store.found."""
        with self._write() as connection:
            changed = connection.execute(update(tables.FEDERATION).values(sources=sources))
            if changed.rowcount == 0:
                connection.execute(insert(tables.FEDERATION).values(id=1, settings=settings, sources=sources))

    def stamped(self, what: str, stamp: str) -> str | None:
        """See Store.stamped."""
        stamps = tables.FILE_STAMPS
        with self._read() as connection:
            found: str | None = connection.execute(
                select(stamps.c.value).where(stamps.c.what == what, stamps.c.stamp == stamp)
            ).scalar()
        return found

    def stamp(self, what: str, stamp: str, value: str) -> None:
        """See Store.stamp."""
        with self._write() as connection:
            connection.execute(delete(tables.FILE_STAMPS).where(tables.FILE_STAMPS.c.what == what))
            connection.execute(insert(tables.FILE_STAMPS).values(what=what, stamp=stamp, value=value))

    # ---------------------------------------------------------------------------------------------------- rounds

    def record(self, round_: Round) -> int:
        """See Store.record."""
        with self._write() as connection:
            connection.execute(update(tables.REVISION).values(value=tables.REVISION.c.value + 1))
            revision = int(connection.execute(select(tables.REVISION.c.value)).scalar_one())
            audit_table.append(connection, write_round(connection, round_, revision, self._clock()))
        return revision

    def round(self, number: int) -> Round | None:
        """See Store.round."""
        rounds = tables.ROUNDS
        with self._read() as connection:
            row = connection.execute(select(rounds).where(rounds.c.number == number)).first()
            return read_round(connection, row, whole=False) if row else None

    def latest_round(self) -> Recorded | None:
        """See Store.latest_round."""
        return next(iter(self._newest(1, whole=True)), None)

    def rounds(self, limit: int = 0) -> Sequence[Recorded]:
        """See Store.rounds."""
        return self._newest(limit, whole=False)

    def _newest(self, limit: int, *, whole: bool) -> Sequence[Recorded]:
        query = select(tables.ROUNDS).order_by(desc(tables.ROUNDS.c.number)).limit(limit or None)
        with self._read() as connection:
            rows = connection.execute(query).all()
            return [Recorded(read_round(connection, row, whole=whole), int(row.revision)) for row in rows]

    def contribution(self, round_: int, attempt: int, layer: int, client: str) -> str | None:
        """See Store.contribution."""
        key = {"round": round_, "attempt": attempt, "layer": layer, "client": client}
        table = tables.CONTRIBUTIONS
        with self._read() as connection:
            digest: str | None = connection.execute(select(table.c.digest).where(matches(table, key))).scalar()
        return digest

    def latest_version(self) -> int:
        """See Store.latest_version."""
        rounds = tables.ROUNDS
        query = select(func.max(rounds.c.number)).where(rounds.c.phase == Phase.PUBLISHED.value)
        with self._read() as connection:
            return int(connection.execute(query).scalar() or 0)

    def version(self, number: int) -> Sequence[LayerWeights] | None:
        """See Store.version."""
        if number == 0:
            return ()
        found = self.round(number)
        held = found is not None and found.phase is Phase.PUBLISHED and number not in self.pruned()
        return found.merged if found and held else None

    def prune(self, keep: int) -> None:
        """See Store.prune."""
        rounds, pruned = tables.ROUNDS, tables.PRUNED_VERSIONS
        published = select(rounds.c.number).where(rounds.c.phase == Phase.PUBLISHED.value)
        older = published.order_by(desc(rounds.c.number)).offset(max(1, keep)).limit(MOST_VERSIONS)
        with self._write() as connection:
            known = set(connection.execute(select(pruned.c.round)).scalars())
            new = sorted(set(connection.execute(older).scalars()) - known)
            if new:
                connection.execute(insert(pruned), [{"round": each} for each in new])
                now = self._clock()
                audit_table.append(connection, [entry(now, SERVER, SERVER, "prune", f"version {each}") for each in new])

    def pruned(self) -> frozenset[int]:
        """See Store.pruned."""
        with self._read() as connection:
            return frozenset(connection.execute(select(tables.PRUNED_VERSIONS.c.round)).scalars())

    def needed(self) -> frozenset[str]:
        """See Store.needed."""
        rounds, weights, given = tables.ROUNDS, tables.LAYER_WEIGHTS, tables.CONTRIBUTIONS
        lost = (Phase.NO_QUORUM.value, Phase.ABORTED.value)
        present = and_(weights.c.round == rounds.c.number, weights.c.attempt == rounds.c.attempt)
        merged = (
            select(weights)
            .join(rounds, present)
            .where(rounds.c.phase.not_in(lost), rounds.c.number.not_in(select(tables.PRUNED_VERSIONS.c.round)))
        )
        counted = select(given.c.digest).join(rounds, given.c.round == rounds.c.number).where(rounds.c.ended.is_(None))
        with self._read() as connection:
            layers = [read_layer(row) for row in connection.execute(merged)]
            given_digests = connection.execute(counted).scalars().all()
        return frozenset({*(digest for each in layers for digest in each.digests), *given_digests})

    def contributions(self, round_: int) -> frozenset[str]:
        """See Store.contributions."""
        given = tables.CONTRIBUTIONS
        with self._read() as connection:
            return frozenset(connection.execute(select(given.c.digest).where(given.c.round == round_)).scalars())

    def may_read(self, client: str, digest: str) -> bool:
        """See Store.may_read."""
        if "\0" in digest:  # which PostgreSQL takes in no text
            return False
        weights, given = tables.LAYER_WEIGHTS, tables.CONTRIBUTIONS
        listed = weights.c.kkt_released.contains(json.dumps(digest), autoescape=True)
        merged = select(weights.c.round).where(or_(weights.c.digest == digest, listed))
        own = select(given.c.round).where(given.c.client == client, given.c.digest == digest)
        with self._read() as connection:
            return any(connection.execute(query.limit(1)).first() for query in (merged, own))
