"""The table of a round's life, and what each event does to a round. Pure: a round and an event in, the next round out.

Everything that affects the state machine lives here and in `collabedit.server.policy`, which decides when something
is due. Times are Unix seconds that the caller supplies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import replace
from operator import attrgetter
from typing import Any, Final

from collabedit.common.blinding import Claim
from collabedit.server.claims import OUT, Party, Verdict, judge, judge_late
from collabedit.server.events import (
    Abort,
    Complete,
    Contribute,
    Damaged,
    Decide,
    Drop,
    Enter,
    Event,
    Judge,
    LastLayerMerged,
    LayerMerged,
    NotPositiveDefinite,
    Reasons,
    Report,
    Restart,
    RollBack,
    Settle,
    TooFew,
)
from collabedit.server.rounds import Member, Phase, Round, Status, Told, claimed

NAMES: Final = attrgetter("slot", "fact")  # the order of claims
TRANSITIONS: Final[Mapping[tuple[Phase, type[Event]], Phase]] = {
    (Phase.OPEN, Enter): Phase.OPEN,
    (Phase.OPEN, Settle): Phase.OPEN,
    (Phase.OPEN, Drop): Phase.OPEN,
    (Phase.OPEN, Report): Phase.OPEN,
    (Phase.OPEN, Judge): Phase.OPEN,
    (Phase.OPEN, Decide): Phase.OPEN,
    (Phase.OPEN, Contribute): Phase.COLLECTING,
    (Phase.OPEN, TooFew): Phase.NO_QUORUM,
    (Phase.OPEN, Abort): Phase.ABORTED,
    (Phase.OPEN, RollBack): Phase.PUBLISHED,
    (Phase.COLLECTING, Enter): Phase.COLLECTING,
    (Phase.COLLECTING, Settle): Phase.COLLECTING,
    (Phase.COLLECTING, Drop): Phase.COLLECTING,
    (Phase.COLLECTING, Report): Phase.COLLECTING,
    (Phase.COLLECTING, Judge): Phase.COLLECTING,
    (Phase.COLLECTING, Decide): Phase.COLLECTING,
    (Phase.COLLECTING, Contribute): Phase.COLLECTING,
    (Phase.COLLECTING, Restart): Phase.COLLECTING,
    (Phase.COLLECTING, Damaged): Phase.COLLECTING,
    (Phase.COLLECTING, Complete): Phase.MERGING,
    (Phase.COLLECTING, TooFew): Phase.NO_QUORUM,
    (Phase.COLLECTING, Abort): Phase.ABORTED,
    (Phase.COLLECTING, RollBack): Phase.PUBLISHED,
    (Phase.MERGING, LayerMerged): Phase.COLLECTING,
    (Phase.MERGING, LastLayerMerged): Phase.PUBLISHED,
    (Phase.MERGING, Restart): Phase.COLLECTING,
    (Phase.MERGING, Damaged): Phase.COLLECTING,
    (Phase.MERGING, TooFew): Phase.NO_QUORUM,
    (Phase.MERGING, NotPositiveDefinite): Phase.ABORTED,
    (Phase.MERGING, Abort): Phase.ABORTED,
}


class IllegalTransitionError(Exception):
    """An event that the table or the round's own state does not allow; the round stays as it was."""


def advance(round_: Round, event: Event) -> Round:
    """The round after `event`. Raises IllegalTransitionError where that cannot happen, and nothing changes."""
    phase = TRANSITIONS.get((round_.phase, type(event)))
    if phase is None:
        raise IllegalTransitionError(f"round {round_.number} is {round_.phase.value}: {type(event).__doc__} cannot be")
    changed = _APPLY[type(event)](round_, event)
    return replace(_over(changed) if phase.ended else changed, phase=phase, ended=event.at if phase.ended else None)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise IllegalTransitionError(what)


def _with(round_: Round, *changed: Member) -> Round:
    members = {each.client: each for each in (*round_.members, *changed)}
    return replace(round_, members=tuple(members[client] for client in sorted(members)))


def _out(round_: Round, reasons: Reasons, status: Status = Status.OUT) -> Round:
    """LEFT may also be who was lost before, and could have come back."""
    there = {each.client: each for each in round_.members if each.status.live or status is Status.LEFT}
    _require(set(reasons) <= set(there), f"not in round {round_.number}: {sorted(set(reasons) - set(there))}")
    gone = (replace(there[client], status=status, reason=reason, digest="") for client, reason in reasons.items())
    return _with(round_, *gone)


def _awaiting(round_: Round) -> Round:
    """Every live member owes a contribution again."""
    return _with(round_, *(replace(each, status=Status.ENTERED, digest="") for each in round_.live))


def _over(round_: Round) -> Round:
    """Without what the store tells of an ended round."""
    members = tuple(replace(each, claims=(), out=()) for each in round_.members)
    return replace(round_, members=members, told=(), verdicts=(), decisions=())


def _enter(round_: Round, event: Enter) -> Round:
    _require(not round_.fixed, f"round {round_.number} takes no more members since its first layer closed")
    present = round_.member(event.client)
    _require(present is None or present.status is Status.OUT, f"{event.client} is in round {round_.number} already")
    entered = event.at if round_.entered is None else round_.entered
    place = 1 + max((each.place for each in round_.members), default=0)
    claims = tuple(sorted(event.claims or (), key=NAMES))
    _require(len(claims) <= event.edits, f"{event.client} claims {len(claims)} facts by {event.edits} edits")
    new = Member(event.client, event.edits, place=place, judged=event.claims is None, claims=claims)
    return _with(replace(round_, entered=entered), replace(new, claimed=claimed(present, claims)))


def _settle(round_: Round, event: Settle) -> Round:
    """All at once; later, when the others have been judged, who comes is judged by itself, one after the other."""
    _require(bool(round_.unsettled), f"round {round_.number} has nothing to settle")
    settled = [each for each in round_.by_receipt if each.judged]
    if not settled:
        return _judged(round_, round_.unsettled, judge([each.party for each in round_.unsettled], event.rule))
    late = round_.unsettled[0]
    out = ((each.client, claim) for each in settled for claim in each.out)
    verdicts = judge_late((each.party for each in settled), out, late.party, event.rule)
    return _judged(round_, (late,), verdicts)


def _judged(round_: Round, members: tuple[Member, ...], verdicts: tuple[Verdict, ...]) -> Round:
    """What members claim in vain is taken off their edits."""
    vain: dict[str, set[Claim]] = {each.client: set() for each in members}
    for each in verdicts:
        if each.kind in OUT:
            vain[each.client].add(each.claim)
    judged = (_without(each, vain[each.client]) for each in members)
    return _with(replace(round_, verdicts=round_.verdicts + verdicts), *judged)


def _without(member: Member, vain: Set[Claim]) -> Member:
    out = [claim for claim in member.claims if claim in vain] if vain else []
    return replace(member, judged=True, edits=member.edits - len(out), out=tuple(dict.fromkeys(out)))


def _report(round_: Round, event: Report) -> Round:
    _require(0 <= event.held <= event.tested, f"{event.client} says that {event.held} of {event.tested} edits hold")
    already = any(each.client == event.client for each in round_.told)
    _require(not already, f"{event.client} has reported to round {round_.number} already")
    told = Told(event.client, event.at, event.tested, event.held, tuple(sorted(set(event.failed), key=NAMES)))
    return replace(round_, told=(*round_.told, told))


def _judge(round_: Round, event: Judge) -> Round:
    _require(round_.compared is None, f"round {round_.number} has compared already what failed")
    verdicts = judge([Party(each.client, each.failed) for each in round_.by_merge], event.rule, overlaps=False)
    return replace(round_, compared=event.at, verdicts=round_.verdicts + verdicts)


def _decide(round_: Round, event: Decide) -> Round:
    decisions = {each.slot: each for each in (*round_.decisions, event.decision)}
    ordered = tuple(decisions[slot] for slot in sorted(decisions))
    return replace(round_, decisions=ordered, verdicts=round_.verdicts + event.verdicts)


def _contribute(round_: Round, event: Contribute) -> Round:
    member = round_.member(event.client)
    here = (round_.attempt, round_.layer)
    _require(round_.settled, f"round {round_.number} is not settled yet")
    _require((event.attempt, event.layer) == here, f"round {round_.number} collects attempt, layer {here}")
    _require(
        member is not None and member.status is Status.ENTERED, f"{event.client} owes round {round_.number} nothing"
    )
    assert member is not None
    since = event.at if round_.since is None else round_.since
    return _with(replace(round_, since=since), replace(member, status=Status.CONTRIBUTED, digest=event.digest))


def _drop(round_: Round, event: Drop) -> Round:
    _require(round_.layer == 0, f"round {round_.number} has merged layers: losing a member restarts it")
    remaining = _out(round_, event.reasons, Status.LEFT if event.left else Status.OUT)
    return remaining if remaining.live else replace(remaining, entered=None, since=None)  # nobody waits any more


def _restart(round_: Round, event: Restart) -> Round:
    begun = round_.layer > 0 or round_.phase is Phase.MERGING
    _require(begun, f"round {round_.number} has merged nothing yet: there is nothing to restart")
    remaining = _awaiting(_out(round_, event.reasons))
    return replace(remaining, attempt=round_.attempt + 1, layer=0, merged=(), numbers=(), since=event.at)


def _damaged(round_: Round, event: Damaged) -> Round:
    counted = {each.client: each for each in round_.contributed}
    unknown = sorted(set(event.clients) - set(counted))
    _require(not unknown, f"round {round_.number} has no contribution of {unknown}")
    return _with(round_, *(replace(counted[each], status=Status.ENTERED, digest="") for each in event.clients))


def _complete(round_: Round, event: Complete) -> Round:
    closed = _out(round_, event.late)
    _require(len(closed.contributed) >= round_.quorum, f"round {round_.number} has no quorum")
    _require(closed.live == closed.contributed, f"round {round_.number} still waits for a member")
    return closed


def _too_few(round_: Round, event: TooFew) -> Round:
    return replace(_out(round_, event.reasons), reason=event.reason, merged=())


def _merged(round_: Round, event: LayerMerged | LastLayerMerged) -> Round:
    names = tuple(each.weight for each in event.merged)
    _require(names == round_.exchanges[round_.layer], f"round {round_.number} merges {round_.exchanges[round_.layer]}")
    _require(round_.last_layer == isinstance(event, LastLayerMerged), f"round {round_.number}: {type(event).__doc__}?")
    merged, numbers = round_.merged + event.merged, round_.numbers + event.numbers
    if round_.last_layer:
        return replace(round_, merged=merged, numbers=numbers)
    return replace(_awaiting(round_), merged=merged, numbers=numbers, layer=round_.layer + 1, since=event.at)


def _aborted(round_: Round, event: NotPositiveDefinite | Abort) -> Round:
    gone = _out(round_, {each.client: event.reason for each in round_.live})
    return replace(gone, reason=event.reason, merged=(), numbers=round_.numbers + event.numbers)


def _rolled_back(round_: Round, event: RollBack) -> Round:
    _require(0 <= event.to < round_.number, f"round {round_.number} comes after no version {event.to}")
    gone = _out(round_, {each.client: event.reason for each in round_.live})
    return replace(gone, merged=event.merged, restores=event.to, reason=event.reason)


_APPLY: Final[Mapping[type[Event], Callable[[Round, Any], Round]]] = {
    Enter: _enter,
    Settle: _settle,
    Report: _report,
    Judge: _judge,
    Decide: _decide,
    Contribute: _contribute,
    Drop: _drop,
    Restart: _restart,
    Damaged: _damaged,
    Complete: _complete,
    TooFew: _too_few,
    LayerMerged: _merged,
    LastLayerMerged: _merged,
    NotPositiveDefinite: _aborted,
    Abort: _aborted,
    RollBack: _rolled_back,
}
