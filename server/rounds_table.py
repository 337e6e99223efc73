"""A round as rows: written whole in one transaction, and read back as it was."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter
from sqlalchemy import Connection, delete, select

from collabedit.common.errors import StateError
from collabedit.common.watched import LayerNumbers
from collabedit.server import tables
from collabedit.server.audit import Entry
from collabedit.server.audit_rounds import entries_of, gone, settled
from collabedit.server.claims_table import new_verdicts, tell_overwritten, with_claims, write_claims, write_told
from collabedit.server.rounds import LayerWeights, Member, Phase, Round, Status
from collabedit.server.sql_identity import UNREADABLE, matches, put

ROUND: Final = TypeAdapter(Round)
LAYER: Final = TypeAdapter(LayerWeights)
Rows = Iterable[Any]


@dataclass(frozen=True)
class Known:
    """What is recorded of a round.

    phase: None for a new one. members: their rows, by client; counted: the digests that count for the attempt and layer
    under way, by client.
    """

    phase: Phase | None
    members: Mapping[str, Mapping[str, Any]]
    counted: Mapping[str, str]


def write_round(connection: Connection, round_: Round, revision: int, now: float) -> list[Entry]:
    """Writes what has changed since the round was recorded last; returns what is to be noted of it.

    What has not changed is not written again: else each call of one of n members would write n rows.
    """
    known = _known(connection, round_)
    verdicts = new_verdicts(connection, round_)
    noted = entries_of(known.phase, known.counted, round_, now, verdicts)
    noted += gone({client: Status(each["status"]) for client, each in known.members.items()}, round_, now)
    put(connection, tables.ROUNDS, {"number": round_.number}, {**_row(round_), "revision": revision})
    for member in round_.members:
        _write_member(connection, round_, member, known)
    _write_layers(connection, round_)
    write_told(connection, round_, verdicts)
    if round_.version is not None and round_.restores is None and known.phase is not Phase.PUBLISHED:
        noted += settled(round_, now, tell_overwritten(connection, round_))
    return noted


def read_round(connection: Connection, row: Any, *, whole: bool) -> Round:
    """The round of a row of ROUNDS. Raises StateError where its rows cannot have been written so.

    whole: where it is under way, with what parties claimed and told in it, and with what was decided.
    """
    members, given, weights = tables.MEMBERS, tables.CONTRIBUTIONS, tables.LAYER_WEIGHTS
    here = {"round": row.number, "attempt": row.attempt}
    layer_here = matches(given, {**here, "layer": row.layer})
    digests = {each.client: each.digest for each in connection.execute(select(given).where(layer_here))}
    entered = connection.execute(select(members).where(members.c.round == row.number).order_by(members.c.client))
    merged = connection.execute(select(weights).where(matches(weights, here)).order_by(weights.c.position))
    watched = select(tables.LAYER_NUMBERS).where(matches(tables.LAYER_NUMBERS, here))
    numbers = connection.execute(watched.order_by(tables.LAYER_NUMBERS.c.position))
    with _damage(row.number):
        found = ROUND.validate_python(_values(row, entered, merged, numbers, digests))
        return with_claims(connection, found) if whole and not found.phase.ended else found


def read_layer(row: Any) -> LayerWeights:
    """The layer of a row of LAYER_WEIGHTS. Raises StateError where it cannot have been written so."""
    with _damage(row.round):
        return LAYER.validate_python(_layer(row))


def _known(connection: Connection, round_: Round) -> Known:
    rounds, given, members = tables.ROUNDS, tables.CONTRIBUTIONS, tables.MEMBERS
    phase = connection.execute(select(rounds.c.phase).where(rounds.c.number == round_.number)).scalar()
    here = matches(given, {"round": round_.number, "attempt": round_.attempt, "layer": round_.layer})
    counted = connection.execute(select(given.c.client, given.c.digest).where(here))
    entered = connection.execute(select(members).where(members.c.round == round_.number)).mappings()
    return Known(
        Phase(phase) if phase else None,
        {each["client"]: {name: each[name] for name in each if name not in ("round", "client")} for each in entered},
        {each.client: each.digest for each in counted},
    )


def _write_member(connection: Connection, round_: Round, member: Member, known: Known) -> None:
    key, row = {"round": round_.number, "client": member.client}, _member_row(member)
    if known.members.get(member.client) != row:
        put(connection, tables.MEMBERS, key, row)
        write_claims(connection, round_, member, known.members.get(member.client))
    if member.digest and known.counted.get(member.client) != member.digest:
        where = {**key, "attempt": round_.attempt, "layer": round_.layer}
        put(connection, tables.CONTRIBUTIONS, where, {"digest": member.digest})


def _write_layers(connection: Connection, round_: Round) -> None:
    key = {"round": round_.number, "attempt": round_.attempt}
    if round_.restores is not None:  # to a version of fewer layers, the base model's none, than it had merged itself
        weights = tables.LAYER_WEIGHTS
        connection.execute(delete(weights).where(matches(weights, key), weights.c.position >= len(round_.merged)))
    for position, merged in enumerate(round_.merged):
        put(connection, tables.LAYER_WEIGHTS, {**key, "position": position}, _layer_row(merged))
    for position, numbers in enumerate(round_.numbers):
        said = {"numbers": numbers.model_dump_json(exclude_none=True)}
        put(connection, tables.LAYER_NUMBERS, {**key, "position": position}, said)


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


def _member_row(member: Member) -> dict[str, Any]:
    told = {"edits": member.edits, "status": member.status.value, "reason": member.reason}
    return {**told, "place": member.place, "judged": int(member.judged), "claimed": member.claimed}


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


@contextmanager
def _damage(number: int) -> Iterator[None]:
    """Says whose rows they are that cannot be read."""
    try:
        yield
    except (ValueError, TypeError) as error:
        why = " ".join(str(error).split())[:200]
        raise StateError(f"round {number}: its rows in the database are damaged: {why}", mend=UNREADABLE) from error


def _values(row: Any, entered: Rows, merged: Rows, numbers: Rows, digests: dict[str, str]) -> dict[str, Any]:
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
    return {**told, "place": row.place, "judged": bool(row.judged), "claimed": row.claimed}
