"""When something is due in a round: quorum, the entry window, deadlines, lost clients. Pure.

`next_event` looks at a round and the time and says what must happen now, if anything; `wait_ends` says by when
something must. Applying it is `collabedit.server.transitions`', doing it the coordinator's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from collabedit.server.claims import Rule
from collabedit.server.events import Complete, Drop, Event, Judge, Reasons, Restart, Settle, TooFew
from collabedit.server.rounds import Phase, Round, Status

COLLECTING = (Phase.OPEN, Phase.COLLECTING)


@dataclass(frozen=True)
class Policy:
    """How long a round waits, in seconds.

    entry_window: from the first Enter, others may still enter. round_deadline: from the first Enter to the end of the
    first layer. layer_deadline: for each later layer, for the first one of a restart, and from the first report until
    the edits that failed are compared. liveness: a client that was not heard of for this long is lost. rule: how
    contradictions are settled.
    """

    entry_window: float
    round_deadline: float
    layer_deadline: float
    liveness: float
    rule: Rule = field(default_factory=Rule)


@dataclass(frozen=True)
class Waits:
    """Since when the server waits for whom, in seconds of its own clock, which nobody sets (`collabedit.server.clock`).

    started: when this process did; no wait is counted from before, so that the time that the server itself was away is
    nobody's delay. heard: when each client was last heard of. entered, since, told: when the round's first Enter came,
    the collecting of its present layer began, and the first client reported, where that was in this process's life.
    """

    started: float
    heard: Mapping[str, float] = field(default_factory=dict)
    entered: float = -math.inf
    since: float = -math.inf
    told: float = -math.inf

    def of(self, client: str) -> float:
        """The time from which the client's silence counts."""
        return max(self.started, self.heard.get(client, self.started))

    def after(self, before: Round, changed: Round, now: float) -> Waits:
        """The waits once the round has changed."""
        first = before.entered is None and changed.entered is not None
        here = (changed.number, changed.attempt, changed.layer, changed.since is None)
        reopened = before.phase is Phase.MERGING and changed.phase is Phase.COLLECTING
        anew = reopened or here != (before.number, before.attempt, before.layer, before.since is None)
        told = now if changed.told and not before.told else self.told
        entered = now if first or reopened else self.entered
        return replace(self, entered=entered, since=now if anew else self.since, told=told)


def wait_ends(round_: Round, policy: Policy, waits: Waits) -> float | None:
    """When the present wait for contributions ends, on the clock of `waits`; None where nobody is waited for."""
    if round_.phase not in COLLECTING or round_.entered is None:
        return None
    if not round_.fixed:
        return max(waits.entered, waits.started) + policy.round_deadline
    return max(waits.since, waits.started) + policy.layer_deadline


def next_event(round_: Round, now: float, policy: Policy, waits: Waits) -> Event | None:
    """What must happen to the round at `now`, on the clock of `waits`; None where it goes on waiting."""
    if round_.phase not in COLLECTING:
        return None
    if _comparable(round_, now, policy, waits):
        return Judge(at=now, rule=policy.rule)
    return None if round_.entered is None else _of_members(round_, now, policy, waits)


def _of_members(round_: Round, now: float, policy: Policy, waits: Waits) -> Event | None:
    silent = _silent(round_, now, policy, waits)
    if silent:
        return losing(round_, silent, now)
    if round_.fixed and len(round_.live) < round_.quorum:
        return _too_few(round_, {}, len(round_.live), now)
    window_ends = max(waits.entered, waits.started) + policy.entry_window
    if _to_settle(round_, window_over=now >= window_ends):
        return Settle(at=now, rule=policy.rule)
    complete = len(round_.contributed) >= round_.quorum and round_.live == round_.contributed
    if complete and (round_.fixed or now >= window_ends):
        return Complete(at=now, late={})
    ends = wait_ends(round_, policy, waits)
    return _at_deadline(round_, now, policy) if ends is not None and now >= ends else None


def losing(round_: Round, reasons: Reasons, now: float, *, left: bool = False) -> Event:
    """What happens to a round that collects or merges when these live members are gone.

    In the first layer it goes on without them; once that has closed it starts again, or ends below the quorum. left:
    they went themselves, or were shut out, and are not taken in again.
    """
    remaining = len(round_.live) - len(reasons)
    if round_.fixed and remaining < round_.quorum:
        return _too_few(round_, reasons, remaining, now)
    if round_.layer == 0 and round_.phase in COLLECTING:
        return Drop(at=now, reasons=reasons, left=left)
    return Restart(at=now, reasons=reasons)


def _to_settle(round_: Round, *, window_over: bool) -> bool:
    """Whether claims are to be compared: of all who came until a quorum was in, or of one who comes after that.

    Nothing merges before the quorum is in; so it costs no time, and whom a policy prefers is not judged out for coming
    after the first.
    """
    if len(round_.unsettled) < len(round_.live):
        return bool(round_.unsettled)
    return window_over and len(round_.live) >= round_.quorum


def _comparable(round_: Round, now: float, policy: Policy, waits: Waits) -> bool:
    """Whether the edits that failed are to be compared: all have told that are to, or were given time enough."""
    if round_.compared is not None or not any(each.failed for each in round_.told):
        return False
    all_told = bool(round_.expected) and set(round_.expected) <= {each.client for each in round_.told}
    return all_told or now >= max(waits.told, waits.started) + policy.layer_deadline


def _silent(round_: Round, now: float, policy: Policy, waits: Waits) -> Reasons:
    """Live members that were not heard of for too long. One that owes the round nothing more is not missed."""
    reason = f"not heard of for {policy.liveness:g} s"
    done = round_.contributed if round_.last_layer else ()
    return {
        each.client: reason
        for each in round_.live
        if each not in done and now - waits.of(each.client) > policy.liveness
    }


def _at_deadline(round_: Round, now: float, policy: Policy) -> Event:
    waited = policy.layer_deadline if round_.fixed else policy.round_deadline
    reason = f"late: no contribution within {waited:g} s"
    late = {each.client: reason for each in round_.live if each.status is Status.ENTERED}
    if len(round_.contributed) < round_.quorum:
        return _too_few(round_, late, len(round_.contributed), now)
    if round_.layer == 0:
        return Complete(at=now, late=late)
    return Restart(at=now, reasons=late)


def _too_few(round_: Round, gone: Reasons, there: int, now: float) -> TooFew:
    reason = f"no quorum: {there} of {round_.quorum}"
    return TooFew(at=now, reasons={**{each.client: reason for each in round_.live}, **gone}, reason=reason)
