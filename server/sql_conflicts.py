"""Conflicts as the database knows them: slots for which different facts were claimed in one round."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, and_, desc, distinct, exists, func, or_, select

from collabedit.server import tables
from collabedit.server.claims import MANUAL, Kind
from collabedit.server.claims_table import FAILED, at_once
from collabedit.server.store import Claimant, Conflict

Place = tuple[int, bytes]  # the round that found a conflict, and its slot
Rows = Sequence[Any]


def newest(connection: Connection, *, undecided: bool, limit: int) -> Sequence[Conflict]:
    """Newest first; undecided: those that wait for an admin; limit: 0: all."""
    given = tables.VERDICTS
    query = select(given.c.round, given.c.slot).where(_contested()).distinct()
    query = query.where(tables.UNDECIDED, ~_decided_since()) if undecided else query.where(tables.CONTRADICTION)
    rows = connection.execute(query.order_by(desc(given.c.round), desc(given.c.slot)).limit(limit or None))
    return _read(connection, [(int(row.round), bytes(row.slot)) for row in rows])


def newest_about(connection: Connection, slot: bytes) -> Conflict | None:
    """The newest one about a slot."""
    given = tables.VERDICTS
    about = (given.c.slot == slot, tables.CONTRADICTION, _contested())
    round_ = connection.execute(select(func.max(given.c.round)).where(*about)).scalar()
    return None if round_ is None else _read(connection, [(int(round_), slot)])[0]


def _counts(round_: Any) -> Any:
    """Of a row of CLAIMS of a round: it failed, or was compared with the others'. Who left before had no part in it."""
    claims, members = tables.CLAIMS, tables.MEMBERS
    whose = and_(members.c.round == round_, members.c.client == claims.c.client)
    return or_(claims.c.source == FAILED, exists().where(whose, members.c.judged == 1).correlate(claims))


def _contested() -> Any:
    """Of a row of VERDICTS: in its round different facts were claimed for its slot."""
    claims, given = tables.CLAIMS, tables.VERDICTS
    same = and_(claims.c.round == given.c.round, claims.c.slot == given.c.slot, _counts(claims.c.round))
    facts = select(func.count(distinct(claims.c.fact))).where(same).correlate(given).scalar_subquery()
    return facts > 1


def _decided_since() -> Any:
    """Of a row of VERDICTS: another one about the same claim came later."""
    given, later = tables.VERDICTS, tables.VERDICTS.alias()
    same = and_(later.c.client == given.c.client, later.c.slot == given.c.slot, later.c.fact == given.c.fact)
    return exists().where(same, later.c.number > given.c.number).correlate(given)


def _read(connection: Connection, places: Sequence[Place]) -> list[Conflict]:
    """The conflicts at these places, in this order; a few statements for each round, however many they are."""
    claimed, told, decided = dict[Place, Rows](), dict[Place, Rows](), dict[bytes, str]()
    for round_, slots in _by_round(places):
        claimed |= {(round_, slot): rows for slot, rows in _claims(connection, round_, slots).items()}
        told |= {(round_, slot): rows for slot, rows in _verdicts(connection, round_, slots).items()}
        decided |= _decided_for(connection, slots)
    return [_conflict(each, claimed[each], told[each], decided.get(each[1], "")) for each in places]


def _by_round(places: Iterable[Place]) -> Iterator[tuple[int, Sequence[bytes]]]:
    slots: dict[int, list[bytes]] = defaultdict(list)
    for round_, slot in places:
        slots[round_].append(slot)
    for round_, each in slots.items():
        yield from ((round_, some) for some in at_once(each))


def _claims(connection: Connection, round_: int, slots: Sequence[bytes]) -> dict[bytes, Rows]:
    claims = tables.CLAIMS
    query = select(claims.c.slot, claims.c.client, claims.c.fact).where(
        claims.c.round == round_, claims.c.slot.in_(slots), _counts(round_)
    )
    return _of_slots(connection.execute(query.order_by(claims.c.place, claims.c.client, claims.c.position)))


def _verdicts(connection: Connection, round_: int, slots: Sequence[bytes]) -> dict[bytes, Rows]:
    """Of the round, and what admins decided since."""
    given = tables.VERDICTS
    rows = connection.execute(select(given).where(given.c.slot.in_(slots)).order_by(given.c.number))
    return _of_slots(row for row in rows if row.round == round_ or (row.round > round_ and row.policy == MANUAL))


def _decided_for(connection: Connection, slots: Sequence[bytes]) -> dict[bytes, str]:
    decisions = tables.DECISIONS
    rows = connection.execute(select(decisions.c.slot, decisions.c.client).where(decisions.c.slot.in_(slots)))
    return {bytes(row.slot): str(row.client) for row in rows}


def _of_slots(rows: Iterable[Any]) -> dict[bytes, Rows]:
    found: dict[bytes, list[Any]] = defaultdict(list)
    for row in rows:
        found[bytes(row.slot)].append(row)
    return dict(found)


def _conflict(place: Place, claimed: Rows, told: Rows, decided_for: str) -> Conflict:
    round_, slot = place
    last = {(row.client, bytes(row.fact)): row for row in told}
    names = dict.fromkeys((str(row.client), bytes(row.fact)) for row in claimed)
    claimants = tuple(Claimant(*each, Kind(last[each].kind) if each in last else None) for each in names)
    said = [last[each] for each in names if each in last] or told
    policy = str(max(said, key=lambda row: row.number).policy)
    return Conflict(slot, round_, claimants, _kept(claimants, decided_for), policy)


def _kept(claimants: Sequence[Claimant], decided_for: str) -> str:
    """Whose fact is written: who was told so, or else who was there before the others and need not be told.

    Where all yield, it is to the party that an admin has decided for, which is not among them.
    """
    if any(each.kind is Kind.UNDECIDED for each in claimants):
        return ""
    kept = [each.client for kind in (Kind.KEEP, None) for each in claimants if each.kind is kind]
    return next(iter(kept), decided_for)
