"""Claims, reports, verdicts and decisions of a round as rows: written and read with it, in its transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, select, update

from collabedit.common.blinding import Claim
from collabedit.server import tables
from collabedit.server.claims import Decision, Kind, Merged, Verdict, overwritten
from collabedit.server.rounds import Member, Phase, Round, Status, Told
from collabedit.server.sql_identity import matches, put

ENTERED: Final = "entered"
FAILED: Final = "failed"
NAME_BYTES: Final = 32
AT_ONCE: Final = 500  # parameters of one statement
Item = TypeVar("Item")


def write_claims(connection: Connection, round_: Round, member: Member, known: Mapping[str, Any] | None) -> None:
    """The claims of a member that is new or has changed; known: its row as it was."""
    table = tables.CLAIMS
    here = {"round": round_.number, "client": member.client, "source": ENTERED}
    if known is None or known["place"] != member.place:
        if known is not None:
            connection.execute(delete(table).where(matches(table, here)))
        _insert_claims(connection, here, member.place, member.claims, frozenset(member.out))
    elif known["judged"] != int(member.judged):
        out = frozenset(member.out)
        places = [{"at": position} for position, claim in enumerate(member.claims) if claim in out]
        if places:
            one = and_(matches(table, here), table.c.position == bindparam("at"))
            connection.execute(update(table).where(one).values(judged_out=1), places)


def write_told(connection: Connection, round_: Round, verdicts: Sequence[Verdict]) -> None:
    """Reports and decisions of a round that have come since it was recorded last, and its new `verdicts`."""
    if round_.told:
        _write_reports(connection, round_)
    _give(connection, round_.number, verdicts)
    if round_.decisions:
        _write_decisions(connection, round_)


def new_verdicts(connection: Connection, round_: Round) -> Sequence[Verdict]:
    """Those that the round has and its record has not, before it is written."""
    if not round_.verdicts:
        return ()
    number = tables.VERDICTS.c.number
    given = select(number).where(tables.VERDICTS.c.round == round_.number)
    last = connection.execute(given.order_by(number.desc()).limit(1)).scalar()
    if last is None:
        return round_.verdicts
    first = connection.execute(given.order_by(number).limit(1)).scalar_one()
    return round_.verdicts[int(last) - int(first) + 1 :]  # no gap: verdicts are given in the round under way alone


def tell_overwritten(connection: Connection, round_: Round) -> Sequence[Verdict]:
    """Gives those a verdict, and returns it, whose edits a round that has just published took the place of."""
    merged = {each.client for each in round_.contributed}
    new = [each for each in _on_old_ground(connection, round_.number) if each.client in merged]
    if not new:
        return ()
    history = _history(connection, {each.claim.slot for each in new}, _lineage(connection, round_.base_version))
    verdicts = overwritten(history, new)
    _give(connection, round_.number, verdicts)
    return verdicts


def with_claims(connection: Connection, round_: Round) -> Round:
    """A round under way as it was read, with what parties have claimed and reported, and what was decided."""
    claims = _claims_of_round(connection, round_.number)
    members = (_with_claims(each, claims.get((ENTERED, each.client), [])) for each in round_.members)
    verdicts, decisions = tables.VERDICTS, tables.DECISIONS
    given = select(verdicts).where(verdicts.c.round == round_.number).order_by(verdicts.c.number)
    decided = select(decisions).where(decisions.c.round == round_.number).order_by(decisions.c.slot)
    return replace(
        round_,
        members=tuple(members),
        told=_told(connection, round_.number, claims),
        verdicts=tuple(verdict_of_row(row) for row in connection.execute(given)),
        decisions=tuple(decision_of_row(row) for row in connection.execute(decided)),
    )


def at_once(values: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """No more at a time than a statement takes."""
    yield from (values[start : start + AT_ONCE] for start in range(0, len(values), AT_ONCE))


def claim_of(slot: bytes, fact: bytes) -> Claim:
    """A claim as it is stored. Raises ValueError for names that cannot have been written."""
    if len(slot) != NAME_BYTES or len(fact) != NAME_BYTES:
        raise ValueError("a claim of other than 32 bytes")
    return Claim(bytes(slot), bytes(fact))


def verdict_of_row(row: Any) -> Verdict:
    """Raises ValueError for what cannot have been written."""
    return Verdict(str(row.client), claim_of(row.slot, row.fact), Kind(row.kind), str(row.policy))


def decision_of_row(row: Any) -> Decision:
    """An admin's decision."""
    facts = bytes(row.facts)
    each = tuple(facts[start : start + NAME_BYTES] for start in range(0, len(facts), NAME_BYTES))
    return Decision(bytes(row.slot), str(row.client), each)


def _claims_of_round(connection: Connection, round_: int) -> Mapping[tuple[str, str], list[tuple[Claim, bool]]]:
    """Claims, and whether they were judged out, by source and client, in order. Raises as `claim_of`."""
    claims = tables.CLAIMS
    query = select(claims.c.source, claims.c.client, claims.c.slot, claims.c.fact, claims.c.judged_out)
    ordered = query.where(claims.c.round == round_).order_by(claims.c.client, claims.c.source, claims.c.position)
    found: dict[tuple[str, str], list[tuple[Claim, bool]]] = defaultdict(list)
    for source, client, slot, fact, out in connection.execute(ordered):
        found[source, client].append((claim_of(slot, fact), bool(out)))
    return found


def _with_claims(member: Member, claimed: Sequence[tuple[Claim, bool]]) -> Member:
    out = dict.fromkeys(claim for claim, is_out in claimed if is_out)
    return replace(member, claims=tuple(claim for claim, _ in claimed), out=tuple(out))


def _told(
    connection: Connection, round_: int, claims: Mapping[tuple[str, str], list[tuple[Claim, bool]]]
) -> tuple[Told, ...]:
    """Reports, in receipt order."""
    table = tables.REPORTS
    rows = connection.execute(select(table).where(table.c.round == round_).order_by(table.c.position))
    return tuple(
        Told(
            row.client, row.at, row.tested, row.held, tuple(claim for claim, _ in claims.get((FAILED, row.client), []))
        )
        for row in rows
    )


def _write_reports(connection: Connection, round_: Round) -> None:
    table = tables.REPORTS
    known = set(connection.execute(select(table.c.client).where(table.c.round == round_.number)).scalars())
    ranks = {client: rank for rank, client in enumerate(round_.expected)}
    for position, each in enumerate(round_.told):
        if each.client not in known:
            values = {"version": round_.base_version, "at": each.at, "tested": each.tested, "held": each.held}
            key = {"round": round_.number, "client": each.client}
            connection.execute(insert(table).values(**key, position=position, **values))
            _insert_claims(
                connection,
                {**key, "source": FAILED},
                ranks.get(each.client, len(ranks) + position),
                each.failed,
                frozenset(),
            )


def _write_decisions(connection: Connection, round_: Round) -> None:
    table = tables.DECISIONS
    rows = connection.execute(select(table).where(table.c.round == round_.number))
    known = {each.slot: each for each in map(decision_of_row, rows)}
    for each in round_.decisions:
        if known.get(each.slot) != each:
            values = {"client": each.client, "facts": b"".join(each.facts), "round": round_.number}
            put(connection, table, {"slot": each.slot}, values)


def _insert_claims(
    connection: Connection, key: dict[str, Any], place: int, claims: Sequence[Claim], out: frozenset[Claim]
) -> None:
    rows = [
        {**key, "position": position, "place": place, "slot": each.slot, "fact": each.fact,
         "judged_out": int(each in out)}
        for position, each in enumerate(claims)
    ]  # fmt: skip
    if rows:
        connection.execute(insert(tables.CLAIMS), rows)


def _give(connection: Connection, round_: int, verdicts: Sequence[Verdict]) -> None:
    """Numbers verdicts; writers exclude each other, so nothing comes between."""
    if not verdicts:
        return
    table = tables.VERDICTS
    last = int(connection.execute(select(func.max(table.c.number))).scalar() or 0)
    rows = [
        {
            "number": number, "round": round_, "client": each.client, "slot": each.claim.slot, "fact": each.claim.fact,
            "kind": each.kind.value, "policy": each.policy,
        }
        for number, each in enumerate(verdicts, last + 1)
    ]  # fmt: skip
    connection.execute(insert(table), rows)


def _on_old_ground(connection: Connection, round_: int) -> list[Merged]:
    """A round's claims about slots that were claimed in rounds before; most never were, and are not read."""
    claims, older = tables.CLAIMS, tables.CLAIMS.alias()
    same = and_(older.c.slot == claims.c.slot, older.c.round < claims.c.round)
    before = select(func.max(older.c.round)).where(same).correlate(claims).scalar_subquery()
    here = and_(claims.c.round == round_, claims.c.source == ENTERED, claims.c.judged_out == 0)
    return [_merged(row) for row in connection.execute(select(claims).where(here, before.is_not(None)))]


def _lineage(connection: Connection, version: int) -> frozenset[int]:
    """The rounds whose merges are in a version's weights: those after a version that was brought back are not."""
    rounds = tables.ROUNDS
    published = select(rounds.c.number, rounds.c.base_version, rounds.c.restores)
    rows = connection.execute(published.where(rounds.c.phase == Phase.PUBLISHED.value))
    before = {int(number): (int(base), restores) for number, base, restores in rows}
    merged = set()
    while version in before:
        base, restores = before[version]
        if restores is None:
            merged.add(version)
        version = base if restores is None else int(restores)
    return frozenset(merged)


def _history(connection: Connection, slots: Iterable[bytes], lineage: frozenset[int]) -> list[Merged]:
    """Claims about the slots that those rounds merged."""
    claims, members = tables.CLAIMS, tables.MEMBERS
    whose = and_(members.c.round == claims.c.round, members.c.client == claims.c.client)
    merged = and_(
        claims.c.source == ENTERED, claims.c.judged_out == 0, members.c.status == Status.CONTRIBUTED.value
    )  # fmt: skip
    found: list[Merged] = []
    for some in at_once(sorted(slots)):
        rows = connection.execute(select(claims).join(members, whose).where(merged, claims.c.slot.in_(some)))
        found += [each for each in map(_merged, rows) if each.round in lineage]
    return found


def _merged(row: Any) -> Merged:
    return Merged(int(row.round), str(row.client), Claim(bytes(row.slot), bytes(row.fact)))
