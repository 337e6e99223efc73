"""What a client does next, from its place and the server's snapshot."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collabedit.client.decide import Act, Action, Place, decide
from collabedit.client.snapshot import LayerVersion, Membership, Phase, Snapshot

LAYERS = 3
OPEN = Snapshot(round=4, phase=Phase.OPEN, revision=9, base_version=3, latest_version=3)
ENTERED = replace(OPEN, member=Membership.ENTERED)
IN = Place(version=3, round=4, targets=True)
PRE = replace(IN, targets=False, detection="pre-merge")
UNSETTLED = replace(ENTERED, settled=False)
MERGED_BEFORE = Place(version=3, owes=True)


def merged(count: int) -> tuple[LayerVersion, ...]:
    """The first layers of an attempt, merged."""
    return tuple(LayerVersion(f"layer.{index}", f"digest-{index}") for index in range(count))


TABLE = [
    ("too few edits wait", Place(version=3), OPEN, Action(Act.WAIT)),
    ("enough edits", Place(version=3, ready=True), OPEN, Action(Act.ENTER, 4)),
    ("a round that did not take us", Place(version=3, ready=True, shut=4), OPEN, Action(Act.WAIT)),
    ("older weights", Place(version=2, ready=True), OPEN, Action(Act.CATCH_UP, 3)),
    (
        "a round that merges takes nobody in",
        Place(version=3, ready=True),
        replace(OPEN, phase=Phase.MERGING),
        Action(Act.WAIT),
    ),
    (
        "a later layer takes nobody in",
        Place(version=3, ready=True),
        replace(OPEN, phase=Phase.COLLECTING, layer=1),
        Action(Act.WAIT),
    ),
    (
        "a restarted round takes nobody in",
        Place(version=3, ready=True),
        replace(OPEN, phase=Phase.COLLECTING, attempt=1),
        Action(Act.WAIT),
    ),
    ("merged edits are scored", Place(version=3, unscored=True), OPEN, Action(Act.SCORE, 3)),
    ("entering comes before scoring", Place(version=3, unscored=True, ready=True), OPEN, Action(Act.ENTER, 4)),
    ("entering was noted but not sent", IN, OPEN, Action(Act.ENTER, 4)),
    ("z first", replace(IN, targets=False), ENTERED, Action(Act.FIND_TARGETS, 4)),
    ("the first layer", IN, ENTERED, Action(Act.EDIT, 0)),
    ("its contribution is written", replace(IN, written=frozenset({0})), ENTERED, Action(Act.SEND, 0)),
    (
        "and counted",
        replace(IN, written=frozenset({0})),
        replace(ENTERED, member=Membership.CONTRIBUTED, phase=Phase.COLLECTING),
        Action(Act.WAIT),
    ),
    (
        "a merged layer is applied",
        IN,
        replace(ENTERED, phase=Phase.COLLECTING, layer=1, merged=merged(1)),
        Action(Act.APPLY, 0),
    ),
    (
        "and the next one edited",
        replace(IN, applied=1),
        replace(ENTERED, phase=Phase.COLLECTING, layer=1, merged=merged(1)),
        Action(Act.EDIT, 1),
    ),
    (
        "after a restart of the client z comes before merged layers",
        replace(IN, targets=False),
        replace(ENTERED, phase=Phase.COLLECTING, layer=2, merged=merged(2)),
        Action(Act.FIND_TARGETS, 4),
    ),
    (
        "a new attempt",
        replace(IN, applied=2),
        replace(ENTERED, phase=Phase.COLLECTING, attempt=1),
        Action(Act.RESTART, 1),
    ),
    ("the round has ended", IN, replace(ENTERED, phase=Phase.PUBLISHED, latest_version=4), Action(Act.SETTLE, 4)),
    ("the next round is under way", IN, replace(OPEN, round=5), Action(Act.SETTLE, 4)),
    ("we were left out", IN, replace(ENTERED, member=Membership.OUT), Action(Act.SETTLE, 4)),
    (
        "it began without us",
        IN,
        replace(OPEN, phase=Phase.COLLECTING, layer=1, merged=merged(1)),
        Action(Act.SETTLE, 4),
    ),
    ("a restarted client catches up inside its round", replace(IN, version=0), ENTERED, Action(Act.CATCH_UP, 3)),
    (
        "an ended round is caught up with",
        Place(version=3),
        replace(OPEN, phase=Phase.PUBLISHED, latest_version=4),
        Action(Act.CATCH_UP, 4),
    ),
    ("a round that an earlier life entered", Place(version=3, ready=True), ENTERED, Action(Act.ENTER, 4)),
    ("which has nothing to give to it now", Place(version=3), ENTERED, Action(Act.LEAVE, 4)),
    (
        "or cannot give what a later layer needs",
        Place(version=3, ready=True),
        replace(ENTERED, phase=Phase.COLLECTING, layer=1, merged=merged(1)),
        Action(Act.LEAVE, 4),
    ),
    (
        "what an earlier life contributed cannot be added to",
        Place(version=3, ready=True),
        replace(OPEN, phase=Phase.COLLECTING, member=Membership.CONTRIBUTED),
        Action(Act.WAIT),
    ),
    ("a verdict", Place(version=3, heeded=1, ready=True), replace(OPEN, newest_verdict=2), Action(Act.HEED, 1)),
    ("a verdict that was heeded", Place(version=3, heeded=2), replace(OPEN, newest_verdict=2), Action(Act.WAIT)),
    ("weights come before verdicts", Place(version=2), replace(OPEN, newest_verdict=2), Action(Act.CATCH_UP, 3)),
    ("in a round verdicts wait until it is settled", PRE, replace(UNSETTLED, newest_verdict=2), Action(Act.WAIT)),
    ("and come before z then", PRE, replace(ENTERED, newest_verdict=2), Action(Act.HEED, 0)),
    ("once z was sought the batch stands", IN, replace(ENTERED, newest_verdict=2), Action(Act.EDIT, 0)),
    ("waiting edits are screened", Place(version=3, unscreened=True), OPEN, Action(Act.SCREEN, 3)),
    ("before a round is entered", Place(version=3, unscreened=True, ready=True), OPEN, Action(Act.SCREEN, 3)),
    ("verdicts come before", Place(version=3, unscreened=True), replace(OPEN, newest_verdict=2), Action(Act.HEED, 0)),
    ("retention is measured once a version", Place(version=3, measured=False), OPEN, Action(Act.SCORE, 3)),
    ("it is reported", MERGED_BEFORE, OPEN, Action(Act.REPORT, 4)),
    ("also by a member, before z", replace(IN, owes=True, targets=False), ENTERED, Action(Act.REPORT, 4)),
    ("once a round", replace(MERGED_BEFORE, reported=4), OPEN, Action(Act.WAIT)),
    ("after scoring", replace(MERGED_BEFORE, measured=False), OPEN, Action(Act.SCORE, 3)),
    ("not of the base model", replace(MERGED_BEFORE, version=0), replace(OPEN, base_version=0), Action(Act.WAIT)),
    ("not while a layer is merged", MERGED_BEFORE, replace(OPEN, phase=Phase.MERGING), Action(Act.WAIT)),
    ("nor to a server that knows no reports", MERGED_BEFORE, replace(OPEN, settled=False), Action(Act.WAIT)),
    (
        "to one that compares claims also before it has",
        replace(MERGED_BEFORE, detection="pre-merge"),
        replace(OPEN, settled=False),
        Action(Act.REPORT, 4),
    ),
    ("no z before the claims are compared", PRE, UNSETTLED, Action(Act.WAIT)),
    ("but after", PRE, ENTERED, Action(Act.FIND_TARGETS, 4)),
    (
        "a server that knows no claims settles nothing",
        replace(IN, targets=False),
        UNSETTLED,
        Action(Act.FIND_TARGETS, 4),
    ),
    ("verdicts left too little", replace(PRE, starved=True), ENTERED, Action(Act.LEAVE, 4)),
    ("or may still", replace(PRE, starved=True), UNSETTLED, Action(Act.WAIT)),
]


@pytest.mark.parametrize(("place", "now", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_table(place: Place, now: Snapshot, expected: Action) -> None:
    """Each situation has the one next step that the table says."""
    assert decide(place, now) == expected


places = st.builds(
    Place,
    version=st.integers(0, 4),
    ready=st.booleans(),
    unscored=st.booleans(),
    round=st.none() | st.integers(1, 5),
    attempt=st.integers(0, 2),
    targets=st.booleans(),
    applied=st.integers(0, LAYERS),
    written=st.frozensets(st.integers(0, LAYERS - 1)),
    shut=st.none() | st.integers(1, 5),
    heeded=st.integers(0, 3),
    unscreened=st.booleans(),
    measured=st.booleans(),
    reported=st.integers(0, 5),
    owes=st.booleans(),
    starved=st.booleans(),
    detection=st.sampled_from(["off", "on-failure", "pre-merge"]),
)
snapshots = st.builds(
    Snapshot,
    round=st.integers(1, 5),
    phase=st.sampled_from(Phase),
    revision=st.integers(1, 99),
    base_version=st.integers(0, 4),
    member=st.sampled_from(Membership),
    attempt=st.integers(0, 2),
    layer=st.integers(0, LAYERS - 1),
    merged=st.integers(0, LAYERS).map(merged),
    latest_version=st.integers(0, 5),
    settled=st.booleans(),
    newest_verdict=st.integers(0, 3),
)


@given(places, snapshots)
def test_nothing_is_sent_to_a_round_that_does_not_ask(place: Place, now: Snapshot) -> None:
    """A contribution is made or sent only for the layer that is being collected, by a member, on the right weights."""
    action = decide(place, now)
    if action.act in (Act.EDIT, Act.SEND):
        assert place.round == now.round
        assert now.member is Membership.ENTERED
        assert now.phase in (Phase.OPEN, Phase.COLLECTING)
        assert (action.subject, place.applied, place.attempt) == (now.layer, now.layer, now.attempt)
        assert place.version == now.base_version
        assert place.targets


@given(places, snapshots)
def test_targets_are_sought_on_the_base_weights_alone(place: Place, now: Snapshot) -> None:
    """z is looked for only where the model stands on the round's base version and on this attempt."""
    if decide(place, now).act is Act.FIND_TARGETS:
        assert place.version == now.base_version
        assert place.attempt == now.attempt


@given(places, snapshots)
def test_nothing_is_contributed_before_the_claims_are_compared(place: Place, now: Snapshot) -> None:
    """With detection before the merge no work of a round begins before it is settled."""
    if place.detection == "pre-merge" and not now.settled:
        assert decide(place, now).act not in (Act.FIND_TARGETS, Act.APPLY, Act.EDIT, Act.SEND)


@given(places, snapshots)
def test_a_batch_stands_once_its_z_was_sought(place: Place, now: Snapshot) -> None:
    """Neither verdicts nor screening take an edit out of a round whose targets are there."""
    if place.round is not None and place.targets:
        assert decide(place, now).act not in (Act.HEED, Act.SCREEN)


@given(places, snapshots)
def test_a_report_is_of_the_version_that_the_round_stands_on(place: Place, now: Snapshot) -> None:
    """Everything merged has been scored on it, and the round takes reports."""
    if decide(place, now).act is Act.REPORT:
        assert place.version == now.base_version
        assert place.measured
        assert not place.unscored
        assert now.phase in (Phase.OPEN, Phase.COLLECTING)


@given(places, snapshots)
def test_the_clients_place_is_all_that_counts(place: Place, now: Snapshot) -> None:
    """The same place and snapshot always lead to the same step: nothing is remembered between calls."""
    assert decide(place, now) == decide(replace(place), replace(now))


class FakeRound:
    """A server's round in layer-sync with one other member that always keeps up; and this client's place in it.

    Claims are compared before the merge, `late` looks after the client has entered, and one verdict comes of it.
    """

    def __init__(self, attempts: list[int], late: int = 0) -> None:
        self.now = Snapshot(round=1, phase=Phase.OPEN, revision=1, base_version=0, settled=False)
        self.place = Place(version=0, ready=True, unscored=False, unscreened=True, detection="pre-merge")
        self._late = late
        self._restarts = attempts
        self.taken: list[Action] = []

    def change(self, **values: object) -> None:
        self.now = replace(self.now, revision=self.now.revision + 1, **values)  # type: ignore[arg-type]

    def step(self) -> Action:
        action = decide(self.place, self.now)
        self.taken.append(action)
        getattr(self, action.act.name.lower())(action.subject)
        return action

    def enter(self, round_: int) -> None:
        self.place = replace(self.place, round=round_, attempt=self.now.attempt, ready=False)
        self.change(member=Membership.ENTERED)

    def screen(self, _: int) -> None:
        assert self.place.round is None
        self.place = replace(self.place, unscreened=False)

    def heed(self, after: int) -> None:
        assert after == self.place.heeded
        assert not self.place.written
        self.place = replace(self.place, heeded=self.now.newest_verdict, targets=False)

    def find_targets(self, _: int) -> None:
        assert self.now.settled
        assert self.place.heeded == self.now.newest_verdict
        self.place = replace(self.place, targets=True)

    def edit(self, layer: int) -> None:
        self.place = replace(self.place, written=self.place.written | {layer})

    def send(self, layer: int) -> None:
        self.change(phase=Phase.COLLECTING, member=Membership.CONTRIBUTED)

    def wait(self, _: int) -> None:
        """The other side moves: claims are compared, the layer is merged, or the attempt is lost."""
        if not self.now.settled:
            self._late -= 1
            if self._late < 0:
                self.change(settled=True, newest_verdict=7)
        elif self._restarts and self._restarts[0] == self.now.layer and self.now.layer > 0:
            self._restarts.pop(0)
            self.change(attempt=self.now.attempt + 1, layer=0, merged=(), member=Membership.ENTERED)
        elif self.now.layer == LAYERS - 1:
            self.change(phase=Phase.PUBLISHED, merged=merged(LAYERS), latest_version=1)
        else:
            layer = self.now.layer + 1
            self.change(layer=layer, merged=merged(layer), member=Membership.ENTERED)

    def apply(self, layer: int) -> None:
        assert layer == self.place.applied
        self.place = replace(self.place, applied=layer + 1)

    def restart(self, attempt: int) -> None:
        self.place = replace(self.place, attempt=attempt, applied=0, written=frozenset())

    def settle(self, _: int) -> None:
        self.place = replace(self.place, round=None, applied=0, unscored=True)

    def catch_up(self, version: int) -> None:
        self.place = replace(self.place, version=version, applied=0, measured=False)

    def score(self, _: int) -> None:
        self.place = replace(self.place, unscored=False, measured=True)

    def kill(self) -> None:
        """What a killed client has left: its ledger, and a freshly loaded model."""
        self.place = replace(self.place, version=0, attempt=0, targets=False, applied=0)
        if self.now.attempt != 0:
            self.place = replace(self.place, written=frozenset())


@given(st.lists(st.sampled_from([1, 2]), max_size=2), st.sets(st.integers(0, 30), max_size=5), st.integers(0, 3))
def test_a_round_is_finished_whenever_the_client_is_killed(restarts: list[int], kills: set[int], late: int) -> None:
    """Killed before any steps, through any restarts of the round, the client ends with its edits merged and scored.

    However late the claims are compared: the verdict is heeded before anything is written, and once.
    """
    fake = FakeRound(restarts, late)
    for number in range(200):
        if number in kills:
            fake.kill()
        fake.step()
        if fake.taken[-1].act is Act.SCORE:
            break
    assert fake.place.version == 1
    assert not fake.place.unscored
    assert fake.place.heeded == 7
