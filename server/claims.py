"""Who keeps which edit where parties' edits meet: claims of several parties in, verdicts out. Pure.

A slot is a subject with a relation, a fact has the object too; both are blinded names (`collabedit.common.blinding`).
Parties agree on a slot where one of them claims every fact that any of them does: it writes them, the others' are
duplicates. Else they contradict each other, and the rule picks the party whose facts are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import Enum
from itertools import groupby
from typing import Final, Literal

from collabedit.common.blinding import Claim

ConflictPolicy = Literal["first-come", "last-come", "priority", "manual"]
FIRST: Final = "first-come"
LAST: Final = "last-come"
MANUAL: Final = "manual"
MOST_CLAIMS: Final = 100_000  # of one client in one round, whatever the operator says: what a message can hold

# What each of some parties claims for one slot, in receipt order.
Claimants = Mapping[str, frozenset[bytes]]


class Kind(Enum):
    """What a verdict says of a claim: `VerdictKind` in federation.proto."""

    KEEP = "keep"
    YIELD = "yield"
    DUPLICATE = "duplicate"
    UNDECIDED = "undecided"
    OVERWRITTEN = "overwritten"


OUT: Final = (Kind.YIELD, Kind.DUPLICATE, Kind.UNDECIDED)  # a claim judged so is not merged in the round


@dataclass(frozen=True)
class Party:
    """A client and what it claims."""

    client: str
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class Verdict:
    """A decision about one claim of a client. policy: the one that decided."""

    client: str
    claim: Claim
    kind: Kind
    policy: str


@dataclass(frozen=True)
class Decision:
    """An admin's: of a slot the facts of one client are kept."""

    slot: bytes
    client: str
    facts: tuple[bytes, ...]


@dataclass(frozen=True)
class Rule:
    """How contradictions are settled.

    priority: clients, the highest first; those not named come after them, in receipt order. decisions: by slot; heeded
    where the policy is `manual`.
    """

    policy: ConflictPolicy = FIRST
    priority: tuple[str, ...] = ()
    decisions: Mapping[bytes, Decision] = field(default_factory=dict)

    @property
    def decided(self) -> Set[bytes]:
        """The slots that an admin has decided about, where it is an admin who decides."""
        return self.decisions.keys() if self.policy == MANUAL else frozenset()

    def decision(self, slot: bytes) -> Decision | None:
        """What an admin has decided about a slot, where it is an admin who decides."""
        return self.decisions.get(slot) if self.policy == MANUAL else None

    def picks(self, parties: Iterable[str]) -> str:
        """The party, of several in receipt order, whose facts are kept. Not for `manual`."""
        ordered = list(parties)
        if self.policy == LAST:
            return ordered[-1]
        if self.policy == FIRST:
            return ordered[0]
        rank = {client: place for place, client in enumerate(self.priority)}
        return min(ordered, key=lambda client: rank.get(client, len(rank)))


def judge(parties: Sequence[Party], rule: Rule, *, overlaps: bool = True) -> tuple[Verdict, ...]:
    """The verdicts on what parties claim, in receipt order; none on a slot of one party that nobody has decided.

    overlaps: whether parties that agree are told so; where not, only contradictions are judged.
    """
    shared, slots = _shared(parties, rule), dict[bytes, dict[str, frozenset[bytes]]]()
    for party in parties:
        for slot, facts in by_slot(each for each in party.claims if each.slot in shared).items():
            slots.setdefault(slot, {})[party.client] = facts
    judged = (_judge(slot, slots[slot], rule) for slot in sorted(slots))
    return tuple(
        each for verdicts in judged if overlaps or {_.kind for _ in verdicts} - {Kind.DUPLICATE} for each in verdicts
    )


def judge_late(
    settled: Iterable[Party], out: Iterable[tuple[str, Claim]], late: Party, rule: Rule
) -> tuple[Verdict, ...]:
    """The verdicts on a party that comes when others have been judged: it yields, whatever the policy.

    settled: those who have, with all their claims; out: those of them that were judged out.
    """
    slots = {each.slot for each in late.claims}
    vain = {(client, claim) for client, claim in out if claim.slot in slots}
    writing: dict[bytes, set[bytes]] = {}
    waiting: dict[bytes, set[bytes]] = {}
    for party in settled:
        for claim in party.claims:
            if claim.slot in slots:
                there = waiting if (party.client, claim) in vain else writing
                there.setdefault(claim.slot, set()).add(claim.fact)
    verdicts = []
    for claim in sorted(set(late.claims)):
        there_is, waits = writing.get(claim.slot, set()), waiting.get(claim.slot, set())
        verdict = _judge_late(late.client, claim, there_is, waits, rule)
        verdicts += [verdict] if verdict else []
    return tuple(verdicts)


def decided(claimants: Sequence[tuple[str, bytes, Kind | None]], decision: Decision) -> tuple[Verdict, ...]:
    """What an admin's decision changes for those who contradict each other about its slot.

    claimants: (client, fact, the last verdict on it), in receipt order. Who has no verdict goes on as it is: it was
    there before the others.
    """
    parties: dict[str, frozenset[bytes]] = {}
    for client, fact, _ in claimants:
        parties[client] = parties.get(client, frozenset()) | {fact}
    was = {(client, fact): kind for client, fact, kind in claimants}
    verdicts = _keeping(decision.slot, parties, decision.client, frozenset(decision.facts), MANUAL)
    return tuple(each for each in verdicts if was[each.client, each.claim.fact] not in (None, each.kind))


@dataclass(frozen=True)
class Merged:
    """A claim that a published round has merged."""

    round: int
    client: str
    claim: Claim


def overwritten(history: Iterable[Merged], new: Iterable[Merged]) -> tuple[Verdict, ...]:
    """Who is to be told that a later round's edit took the place of its own.

    history: claims that the present weights hold, of the slots of `new`; of each slot those stand that the last
    of its rounds merged, and equal ones before it. new: the claims of the round that is published.
    """
    standing: dict[bytes, list[Merged]] = {}
    for (slot, _), group in groupby(sorted(history, key=_place), _place):
        merged = list(group)
        facts = {each.claim.fact for each in merged}
        standing[slot] = [*(each for each in standing.get(slot, []) if each.claim.fact in facts), *merged]
    writes: dict[bytes, set[bytes]] = {}
    writers: dict[bytes, set[str]] = {}
    for each in new:
        writes.setdefault(each.claim.slot, set()).add(each.claim.fact)
        writers.setdefault(each.claim.slot, set()).add(each.client)
    told = {
        (each.client, each.claim): None
        for slot, facts in writes.items()
        for each in standing.get(slot, [])
        if each.claim.fact not in facts and each.client not in writers[slot]
    }
    return tuple(Verdict(client, claim, Kind.OVERWRITTEN, LAST) for client, claim in told)


def by_slot(claims: Iterable[Claim]) -> dict[bytes, frozenset[bytes]]:
    """The facts claimed for each slot."""
    facts: dict[bytes, set[bytes]] = {}
    for each in claims:
        facts.setdefault(each.slot, set()).add(each.fact)
    return {slot: frozenset(each) for slot, each in facts.items()}


def _shared(parties: Iterable[Party], rule: Rule) -> Set[bytes]:
    """The slots that have to be looked at: of several parties, or decided about. Most claims are in nobody's way."""
    first: dict[bytes, str] = {}
    shared = {
        claim.slot
        for each in parties
        for claim in each.claims
        if first.setdefault(claim.slot, each.client) != each.client
    }
    return shared | (rule.decided & first.keys())


def _place(merged: Merged) -> tuple[bytes, int]:
    return merged.claim.slot, merged.round


def _judge(slot: bytes, claimants: Claimants, rule: Rule) -> tuple[Verdict, ...]:
    decision = rule.decision(slot)
    if decision is not None:
        facts = claimants.get(decision.client, frozenset(decision.facts))
        keeper = next((each for each in (decision.client, *claimants) if claimants.get(each, frozenset()) & facts), "")
        return _keeping(slot, claimants, keeper, facts, MANUAL)
    every = frozenset().union(*claimants.values())
    agreed = next((each for each, facts in claimants.items() if facts == every), None)
    if agreed is None and rule.policy == MANUAL:
        return tuple(
            Verdict(client, Claim(slot, fact), Kind.UNDECIDED, MANUAL)
            for client, facts in claimants.items()
            for fact in sorted(facts)
        )
    keeper = agreed or rule.picks(claimants)
    return _keeping(slot, claimants, keeper, claimants[keeper], rule.policy)


def _keeping(
    slot: bytes, claimants: Claimants, keeper: str, kept: frozenset[bytes], policy: str
) -> tuple[Verdict, ...]:
    """The verdicts on a slot where `keeper` writes the facts `kept`; it is told only where others contradict them."""
    contested = any(facts - kept for facts in claimants.values())
    verdicts = []
    for client, facts in claimants.items():
        for fact in sorted(facts):
            if fact not in kept:
                kind = Kind.YIELD
            elif client != keeper:
                kind = Kind.DUPLICATE
            elif contested:
                kind = Kind.KEEP
            else:
                continue
            verdicts.append(Verdict(client, Claim(slot, fact), kind, policy))
    return tuple(verdicts)


def _judge_late(client: str, claim: Claim, writing: Set[bytes], waiting: Set[bytes], rule: Rule) -> Verdict | None:
    """writing: facts that settled parties write into the slot; waiting: facts of theirs that were judged out."""
    decision = rule.decision(claim.slot)
    if claim.fact in writing:
        return Verdict(client, claim, Kind.DUPLICATE, FIRST)
    if rule.policy == MANUAL and decision is None:
        return Verdict(client, claim, Kind.UNDECIDED, MANUAL) if writing or waiting - {claim.fact} else None
    if writing:
        return Verdict(client, claim, Kind.YIELD, FIRST)
    if decision and client != decision.client and claim.fact not in decision.facts:
        return Verdict(client, claim, Kind.YIELD, MANUAL)
    return None
