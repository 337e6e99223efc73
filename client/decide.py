"""What a client does next: a pure function of its own place and the server's last snapshot of the round.

`RULES` is the table: the first rule whose condition holds names the action. Nothing here remembers anything, so a
client that was killed, a snapshot that was lost and one that came twice all lead on from where things stand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from collabedit.client.snapshot import Membership, Snapshot
from collabedit.common.settings import Detection


class Act(Enum):
    """The steps of a client; each can be repeated without harm."""

    SETTLE = auto()  # learn how the round that we were in ended, and mark our edits
    CATCH_UP = auto()  # write the weights of the version that the round stands on
    HEED = auto()  # learn what was decided about our claims, and do it
    SCREEN = auto()  # find which of the waiting edits the model holds already
    ENTER = auto()  # take part, with the edits that wait
    LEAVE = auto()  # withdraw from a round that counts on us: our state does not know it, or verdicts left too little
    RESTART = auto()  # a new attempt: the base version's weights, from layer 0
    SCORE = auto()  # score merged edits on the new weights: those just merged, and a sample of those before
    REPORT = auto()  # tell the server how they do
    FIND_TARGETS = auto()  # the z vectors, on the base version's weights
    APPLY = auto()  # write the next merged layer of this attempt
    EDIT = auto()  # measure the layer being collected and write our contribution to it
    SEND = auto()  # upload that contribution and have it counted
    WAIT = auto()  # until the round or the edits file changes


@dataclass(frozen=True)
class Action:
    """A step and what it concerns: a round, version, attempt or layer; see `decide`."""

    act: Act
    subject: int = 0


@dataclass(frozen=True)
class Place:
    """Where this client stands: what its state folder says, and what its model holds.

    version: whose weights the model holds (with `applied` merged layers of the round on top). round: entered and not
    settled, else None. written: layers of `attempt` whose contribution lies in the outbox. ready: enough edits wait to
    enter a round. unscored: edits were merged and not scored yet. shut: a round that did not take us in.
    heeded: the last verdict that was. unscreened: waiting edits are to be screened on the version. measured: its
    retention is. reported: the last round that was reported to; owes: there is something to report. starved: verdicts
    left fewer edits in the batch than the federation takes. detection: the federation's.
    """

    version: int = 0
    ready: bool = False
    unscored: bool = False
    round: int | None = None
    attempt: int = 0
    targets: bool = False
    applied: int = 0
    written: frozenset[int] = frozenset()
    shut: int | None = None
    heeded: int = 0
    unscreened: bool = False
    measured: bool = True
    reported: int = 0
    owes: bool = False
    starved: bool = False
    detection: Detection = "off"


Condition = Callable[[Place, Snapshot], bool]
Subject = Callable[[Place, Snapshot], int]


def is_over(place: Place, now: Snapshot) -> bool:
    """The round that we entered has ended, for all or for us."""
    if place.round is None:
        return False
    if place.round != now.round or now.ended or now.member is Membership.OUT:
        return True
    return now.member is Membership.ABSENT and not now.takes_members


def _may_enter(place: Place, now: Snapshot) -> bool:
    if place.round is not None:
        return now.member is Membership.ABSENT
    counted = now.member is Membership.CONTRIBUTED  # from an earlier life whose state is lost: nothing can be added
    return place.ready and now.takes_members and place.shut != now.round and not counted


def _unknown_to_us(place: Place, now: Snapshot) -> bool:
    """The round waits for what we cannot give: the state folder is older than our entering it."""
    return place.round is None and now.collects and now.member is Membership.ENTERED


def _behind(place: Place, now: Snapshot) -> bool:
    return place.version != now.stands_on


def _judged(place: Place, now: Snapshot) -> bool:
    """There are verdicts to heed. In a round they are once it is settled, and not once z was sought: the batch stands
    from then on, and what is decided later is about edits that are not in it.
    """
    free = place.round is None or (now.settled and not place.targets)
    return free and now.newest_verdict > place.heeded


def _screenable(place: Place, _: Snapshot) -> bool:
    return place.unscreened and place.round is None and place.applied == 0


def _scorable(place: Place, _: Snapshot) -> bool:
    return (place.unscored or not place.measured) and place.applied == 0


def _unreported(place: Place, now: Snapshot) -> bool:
    """A server of a release that knows no reports never says that a round is settled, and has no detection."""
    asked = now.settled or place.detection != "off"
    told = place.reported >= now.round or place.unscored or not place.measured
    return asked and place.owes and not told and place.version > 0 and now.collects


def _unsettled(place: Place, now: Snapshot) -> bool:
    return place.round is not None and place.detection == "pre-merge" and not now.settled


def _starved(place: Place, now: Snapshot) -> bool:
    return place.round is not None and place.starved and now.collects and now.member is Membership.ENTERED


def _restarted(place: Place, now: Snapshot) -> bool:
    return place.round is not None and place.attempt != now.attempt


def _lacks_targets(place: Place, _: Snapshot) -> bool:
    return place.round is not None and not place.targets


def _lacks_layer(place: Place, now: Snapshot) -> bool:
    return place.round is not None and place.applied < len(now.merged)


def _is_awaited(place: Place, now: Snapshot) -> bool:
    return place.round is not None and now.collects and now.member is Membership.ENTERED and place.applied == now.layer


def _unwritten(place: Place, now: Snapshot) -> bool:
    return _is_awaited(place, now) and now.layer not in place.written


RULES: Final[tuple[tuple[Condition, Act, Subject], ...]] = (
    (is_over, Act.SETTLE, lambda place, _: place.round or 0),
    (_behind, Act.CATCH_UP, lambda _, now: now.stands_on),
    (_judged, Act.HEED, lambda place, _: place.heeded),
    (_screenable, Act.SCREEN, lambda place, _: place.version),
    (_may_enter, Act.ENTER, lambda _, now: now.round),
    (_unknown_to_us, Act.LEAVE, lambda _, now: now.round),
    (_restarted, Act.RESTART, lambda _, now: now.attempt),
    (_scorable, Act.SCORE, lambda place, _: place.version),
    (_unreported, Act.REPORT, lambda _, now: now.round),
    (_unsettled, Act.WAIT, lambda _, now: 0),
    (_starved, Act.LEAVE, lambda _, now: now.round),
    (_lacks_targets, Act.FIND_TARGETS, lambda place, _: place.round or 0),
    (_lacks_layer, Act.APPLY, lambda place, _: place.applied),
    (_unwritten, Act.EDIT, lambda _, now: now.layer),
    (_is_awaited, Act.SEND, lambda _, now: now.layer),
)


def decide(place: Place, now: Snapshot) -> Action:
    """The next step. `subject` is the round (SETTLE, ENTER, LEAVE, REPORT, FIND_TARGETS), the version (CATCH_UP,
    SCREEN, SCORE), the last verdict heeded (HEED), the attempt (RESTART) or the layer's index (APPLY, EDIT, SEND).
    """
    for condition, act, subject in RULES:
        if condition(place, now):
            return Action(act, subject(place, now))
    return Action(Act.WAIT)
