"""The store over an SQL database (SQLAlchemy Core)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from pydantic import TypeAdapter
from sqlalchemy import Connection, and_, delete, desc, func, insert, or_, select, update

from collabedit.common.errors import StateError
from collabedit.common.watched import LayerNumbers
from collabedit.server import audit_table, tables
from collabedit.server.audit import SERVER, entry
from collabedit.server.audit_rounds import entries_of, settled
from collabedit.server.claims_table import new_verdicts, tell_overwritten, with_claims, write_claims, write_told
from collabedit.server.rounds import LayerWeights, Member, Phase, Round, Status
from collabedit.server.sql_claims import SqlClaims
from collabedit.server.sql_identity import UNREADABLE, matches, put
from collabedit.server.store import Recorded

ROUND: Final = TypeAdapter(Round)
LAYER: Final = TypeAdapter(LayerWeights)
Rows = Iterable[Any]
MEMBER: Final = ("edits", "status", "reason", "place", "judged")
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
            phase, known, counted = _before(connection, round_)
            verdicts = new_verdicts(connection, round_)
            noted = entries_of(phase, counted, round_, self._clock(), verdicts)
            put(connection, tables.ROUNDS, {"number": round_.number}, {**_row(round_), "revision": revision})
            for member in round_.members:
                if known.get(member.client) != _member_row(member):
                    put(connection, tables.MEMBERS, _key(round_, member), _member_row(member))
                    write_claims(connection, round_, member, known.get(member.client))
                if member.digest and counted.get(member.client) != member.digest:
                    where = {**_key(round_, member), "attempt": round_.attempt, "layer": round_.layer}
                    put(connection, tables.CONTRIBUTIONS, where, {"digest": member.digest})
            if round_.restores is not None:
                _forget_layers_after(connection, round_)
            for position, merged in enumerate(round_.merged):
                key = {"round": round_.number, "attempt": round_.attempt, "position": position}
                put(connection, tables.LAYER_WEIGHTS, key, _layer_row(merged))
            for position, numbers in enumerate(round_.numbers):
                key = {"round": round_.number, "attempt": round_.attempt, "position": position}
                put(connection, tables.LAYER_NUMBERS, key, {"numbers": numbers.model_dump_json(exclude_none=True)})
            write_told(connection, round_, verdicts)
            if round_.version is not None and round_.restores is None and phase is not Phase.PUBLISHED:
                noted += settled(round_, self._clock(), tell_overwritten(connection, round_))
            audit_table.append(connection, noted)
        return revision

    def round(self, number: int) -> Round | None:
        """See Store.round."""
        rounds = tables.ROUNDS
        with self._read() as connection:
            row = connection.execute(select(rounds).where(rounds.c.number == number)).first()
            return _read_round(connection, row) if row else None

    def latest_round(self) -> Recorded | None:
        """See Store.latest_round."""
        return next(iter(self.rounds(1)), None)

    def rounds(self, limit: int = 0) -> Sequence[Recorded]:
        """See Store.rounds."""
        query = select(tables.ROUNDS).order_by(desc(tables.ROUNDS.c.number))
        with self._read() as connection:
            rows = connection.execute(query.limit(limit) if limit else query).all()
            return [Recorded(_read_round(connection, row), int(row.revision)) for row in rows]

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
            layers = [_read_layer(row) for row in connection.execute(merged)]
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


def _before(connection: Connection, round_: Round) -> tuple[Phase | None, dict[str, dict[str, Any]], dict[str, str]]:
    """What is recorded of a round: its phase; by client, its members, and what counts for the attempt and layer.

    What has not changed is not written again: else each call of one of n members would write n rows.
    """
    rounds, given, members = tables.ROUNDS, tables.CONTRIBUTIONS, tables.MEMBERS
    phase = connection.execute(select(rounds.c.phase).where(rounds.c.number == round_.number)).scalar()
    here = matches(given, {"round": round_.number, "attempt": round_.attempt, "layer": round_.layer})
    counted = connection.execute(select(given.c.client, given.c.digest).where(here)).all()
    entered = connection.execute(select(members).where(members.c.round == round_.number)).mappings()
    known = {each["client"]: {name: each[name] for name in MEMBER} for each in entered}
    return Phase(phase) if phase else None, known, {each.client: each.digest for each in counted}


def _row(round_: Round) -> dict[str, Any]:
    return {
        "base_version": round_.base_version,
        "exchanges": json.dumps(round_.exchanges),
        "quorum": round_.quorum,
        "phase": round_.phase.value,
        "attempt": round_.attempt,
        "layer": round_.layer,
        "opened": round_.opened,
        "entered": round_.entered,
        "since": round_.since,
        "ended": round_.ended,
        "reason": round_.reason,
        "restores": round_.restores,
        "expected": json.dumps(round_.expected),
        "compared": round_.compared,
    }


def _forget_layers_after(connection: Connection, round_: Round) -> None:
    """Layers that the round had merged before a rollback to a version of fewer, the base model's none, ended it."""
    weights = tables.LAYER_WEIGHTS
    here = matches(weights, {"round": round_.number, "attempt": round_.attempt})
    connection.execute(delete(weights).where(here, weights.c.position >= len(round_.merged)))


def _layer_row(layer: LayerWeights) -> dict[str, str]:
    return {
        "weight": layer.weight,
        "digest": layer.digest,
        "kkt_released": json.dumps(layer.past.released),
        "kkt_withheld": json.dumps(layer.past.withheld),
        "kkt_party": layer.past.party,
    }


def _layer(row: Any) -> dict[str, Any]:
    pieces = {"released": json.loads(row.kkt_released), "withheld": json.loads(row.kkt_withheld)}
    return {"weight": row.weight, "digest": row.digest, "past": {**pieces, "party": row.kkt_party}}


def _read_layer(row: Any) -> LayerWeights:
    with _damage(row.round):
        return LAYER.validate_python(_layer(row))


def _key(round_: Round, member: Member) -> dict[str, Any]:
    return {"round": round_.number, "client": member.client}


def _member_row(member: Member) -> dict[str, Any]:
    told = {"edits": member.edits, "status": member.status.value, "reason": member.reason}
    return {**told, "place": member.place, "judged": int(member.judged)}


def _read_round(connection: Connection, row: Any) -> Round:
    members, given, weights = tables.MEMBERS, tables.CONTRIBUTIONS, tables.LAYER_WEIGHTS
    here = {"round": row.number, "attempt": row.attempt}
    layer_here = matches(given, {**here, "layer": row.layer})
    digests = {each.client: each.digest for each in connection.execute(select(given).where(layer_here))}
    entered = connection.execute(select(members).where(members.c.round == row.number).order_by(members.c.client))
    merged = connection.execute(select(weights).where(matches(weights, here)).order_by(weights.c.position))
    watched = select(tables.LAYER_NUMBERS).where(matches(tables.LAYER_NUMBERS, here))
    numbers = connection.execute(watched.order_by(tables.LAYER_NUMBERS.c.position))
    with _damage(row.number):
        found = ROUND.validate_python(_whole(row, entered, merged, numbers, digests))
        return found if found.phase.ended else with_claims(connection, found)


@contextmanager
def _damage(number: int) -> Iterator[None]:
    """Says whose rows they are that cannot be read."""
    try:
        yield
    except (ValueError, TypeError) as error:
        why = " ".join(str(error).split())[:200]
        raise StateError(f"round {number}: its rows in the database are damaged: {why}", mend=UNREADABLE) from error


def _whole(row: Any, entered: Rows, merged: Rows, numbers: Rows, digests: dict[str, str]) -> dict[str, Any]:
    kept = Phase(row.phase) not in (Phase.NO_QUORUM, Phase.ABORTED)
    return {
        "number": row.number,
        "base_version": row.base_version,
        "exchanges": json.loads(row.exchanges),
        "quorum": row.quorum,
        "opened": row.opened,
        "phase": Phase(row.phase),
        "attempt": row.attempt,
        "layer": row.layer,
        "members": tuple(_member(each, digests) for each in entered),
        "merged": tuple(_layer(each) for each in merged) if kept else (),
        "entered": row.entered,
        "since": row.since,
        "ended": row.ended,
        "reason": row.reason,
        "restores": row.restores,
        "expected": json.loads(row.expected),
        "compared": row.compared,
        "numbers": tuple(LayerNumbers.model_validate_json(each.numbers) for each in numbers),
    }


def _member(row: Any, digests: dict[str, str]) -> dict[str, Any]:
    status = Status(row.status)
    digest = digests.get(row.client, "") if status is Status.CONTRIBUTED else ""
    told = {"client": row.client, "edits": row.edits, "status": status, "reason": row.reason, "digest": digest}
    return {**told, "place": row.place, "judged": bool(row.judged)}
