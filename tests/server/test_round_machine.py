"""The round's state machine: whatever happens in whatever order, these things hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from collabedit.common.blinding import Claim
from collabedit.server.asked import losing_blobs
from collabedit.server.claims import OUT, Decision, Kind, Rule, Verdict
from collabedit.server.diagram import diagram
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
    Report,
    Restart,
    RollBack,
    Settle,
    TooFew,
)
from collabedit.server.policy import Policy, Waits, losing, next_event, wait_ends
from collabedit.server.rounds import LayerWeights, Phase, Round, Status
from collabedit.server.transitions import TRANSITIONS, IllegalTransitionError, advance

CLIENTS = ("arosa", "bern", "chur", "davos")
WAITING = (Phase.OPEN, Phase.COLLECTING)
POLICIES = ("first-come", "last-come", "priority", "manual")
CLAIMS = st.builds(
    lambda slot, fact: Claim(32 * slot.encode(), 16 * (slot + fact).encode()),
    st.sampled_from("st"),
    st.sampled_from("xyz"),
)


def any_event(kind: type[Event], round_: Round) -> Event:
    """An event of a kind, as well made as can be."""
    merged = tuple(LayerWeights(each, "d") for each in round_.exchanges[round_.layer])
    made = {
        Enter: Enter(at=9.0, client="new", edits=8),
        Contribute: Contribute(at=9.0, client="arosa", attempt=round_.attempt, layer=round_.layer, digest="d"),
        Settle: Settle(at=9.0, rule=Rule()),
        Report: Report(at=9.0, client="arosa"),
        Judge: Judge(at=9.0, rule=Rule()),
        Decide: Decide(at=9.0, decision=Decision(b"s", "arosa", (b"sx",)), verdicts=()),
        Drop: Drop(at=9.0, reasons={}),
        Restart: Restart(at=9.0, reasons={}),
        Damaged: Damaged(at=9.0, clients=()),
        Complete: Complete(at=9.0, late={}),
        TooFew: TooFew(at=9.0, reasons={}, reason="few"),
        LayerMerged: LayerMerged(at=9.0, merged=merged),
        LastLayerMerged: LastLayerMerged(at=9.0, merged=merged),
        NotPositiveDefinite: NotPositiveDefinite(at=9.0, reason="bad"),
        Abort: Abort(at=9.0, reason="stop"),
        RollBack: RollBack(at=9.0, to=0, merged=(), reason="back"),
    }
    return made[kind]


class RoundMachine(RuleBasedStateMachine):
    """Parties come, claim, contribute, report and vanish; time passes; merges succeed and fail."""

    @initialize(
        layers=st.integers(1, 3),
        quorum=st.integers(1, 3),
        window=st.sampled_from([0.0, 10.0]),
        claiming=st.booleans(),
        policy=st.sampled_from(POLICIES),
    )
    def open(self, layers, quorum, window, claiming, policy):
        exchanges = tuple((f"w{layer}",) for layer in range(layers))
        self.round = Round(number=4, base_version=3, exchanges=exchanges, quorum=quorum, opened=0.0, expected=CLIENTS)
        self.decisions: dict[bytes, Decision] = {}
        rule = Rule(policy, ("chur",), self.decisions)
        self.policy = Policy(window, round_deadline=100.0, layer_deadline=50.0, liveness=30.0, rule=rule)
        self.claiming = claiming
        self.now = 0.0
        self.heard: dict[str, float] = {}
        self.waits = Waits(0.0, self.heard)
        self.silent: set[str] = set()
        self.left: set[str] = set()
        self.first_members: set[str] | None = None

    def apply(self, event: Event) -> None:
        before = self.round
        self.round = advance(before, event)
        self.waits = self.waits.after(before, self.round, self.now)
        if not before.fixed and self.round.fixed:
            self.first_members = {each.client for each in self.round.live}
        if not self.round.phase.ended:
            assert self.round.verdicts[: len(before.verdicts)] == before.verdicts, "a verdict is never changed"
        if self.round.attempt > before.attempt:
            assert (self.round.layer, self.round.merged) == (0, ())
            assert not any(each.digest or each.status is Status.CONTRIBUTED for each in self.round.members)
            assert len(self.round.live) < len(before.live) or before.merged

    def settle(self) -> None:
        for _ in range(50):
            event = next_event(self.round, self.now, self.policy, self.waits)
            if event is None:
                return
            self.apply(event)
        raise AssertionError("what is due never ends")

    def alive(self) -> None:
        """Everybody but the silent is heard of all the time."""
        self.heard |= {client: self.now for client in self.heard if client not in self.silent}

    @rule(
        client=st.sampled_from(CLIENTS),
        claims=st.lists(CLAIMS, max_size=3, unique_by=lambda each: each.slot),
        twice=st.integers(0, 2),
    )
    def enter(self, client, claims, twice):
        told = (*claims, *claims[:twice])  # edits that word one fact differently have one claim
        event = Enter(client=client, edits=8, at=self.now, claims=told if self.claiming else None)
        member = self.round.member(client)
        free = member is None or member.status is Status.OUT
        may = self.round.phase in WAITING and not self.round.fixed and free
        self.silent.discard(client)
        self.heard[client] = self.now
        if may:
            self.apply(event)
            self.settle()
        else:
            self.refused(event)

    @rule(client=st.sampled_from(CLIENTS))
    def contribute(self, client):
        here = {"attempt": self.round.attempt, "layer": self.round.layer}
        event = Contribute(client=client, digest=f"{client}-{here}", at=self.now, **here)
        member = self.round.member(client)
        owes = member is not None and member.status is Status.ENTERED
        if self.round.phase in WAITING and owes and self.round.settled:
            self.heard[client] = self.now
            self.apply(event)
            self.settle()
        else:
            self.refused(event)

    @rule(client=st.sampled_from(CLIENTS), failed=st.lists(CLAIMS, max_size=3))
    def report(self, client, failed):
        event = Report(client=client, at=self.now, tested=8, held=4, failed=tuple(failed))
        if self.round.phase in WAITING and client not in {each.client for each in self.round.told}:
            self.apply(event)
            self.settle()
        else:
            self.refused(event)

    @precondition(lambda self: self.round.phase in WAITING)
    @rule(client=st.sampled_from(CLIENTS), claim=CLAIMS)
    def decide(self, client, claim):
        self.decisions[claim.slot] = Decision(claim.slot, client, (claim.fact,))
        keep = Verdict(client, claim, Kind.KEEP, "manual")
        self.apply(Decide(at=self.now, decision=self.decisions[claim.slot], verdicts=(keep,)))
        assert self.decisions[claim.slot] in self.round.decisions
        self.settle()

    @rule(client=st.sampled_from(CLIENTS))
    def vanish(self, client):
        self.silent.add(client)

    @rule(client=st.sampled_from(CLIENTS))
    def leave(self, client):
        if not self.round.phase.ended and client in {each.client for each in self.round.live}:
            merging = self.round.phase is Phase.MERGING
            self.apply(losing(self.round, {client: "left"}, self.now, left=True))
            self.left.add(client)
            assert self.round.phase is not Phase.MERGING, "a merge goes on without asking who left"
            assert not merging or self.round.fixed
            if merging:
                self.alive()
            self.settle()

    @rule(seconds=st.sampled_from([1.0, 20.0, 60.0]))
    def time_passes(self, seconds):
        self.now += seconds
        self.alive()
        self.settle()

    @precondition(lambda self: self.round.phase is Phase.MERGING)
    @rule(good=st.booleans())
    def merge(self, good):
        merged = tuple(LayerWeights(each, "d") for each in self.round.exchanges[self.round.layer])
        kind = LastLayerMerged if self.round.last_layer else LayerMerged
        event = kind(at=self.now, merged=merged) if good else NotPositiveDefinite(at=self.now, reason="bad")
        self.apply(event)
        self.alive()
        self.settle()

    @precondition(lambda self: self.round.contributed and not self.round.phase.ended)
    @rule(how_many=st.integers(1, 4))
    def contributions_are_damaged(self, how_many):
        before = self.round
        self.apply(losing_blobs({each.digest for each in before.contributed[:how_many]})(before, self.now))
        assert self.round.live == tuple(
            replace(each, status=Status.ENTERED, digest="") if each in before.contributed[:how_many] else each
            for each in before.live
        )
        assert (self.round.merged, self.round.attempt, self.round.layer) == (
            before.merged,
            before.attempt,
            before.layer,
        )
        if not self.round.fixed:  # the first layer is open again
            self.first_members = None
        self.alive()
        self.settle()

    @precondition(lambda self: self.round.merged and not self.round.phase.ended)
    @rule()
    def a_merged_layer_is_damaged(self):
        before = self.round
        self.apply(losing_blobs({before.merged[-1].digest})(before, self.now))
        assert (self.round.attempt, self.round.layer, len(self.round.live)) == (before.attempt + 1, 0, len(before.live))
        self.settle()

    @precondition(lambda self: self.round.phase in WAITING)
    @rule(to=st.integers(0, 3))
    def roll_back(self, to):
        whole = tuple(LayerWeights(each, f"v{to}") for exchange in self.round.exchanges for each in exchange)
        self.apply(RollBack(at=self.now, to=to, merged=whole if to else (), reason="back"))
        assert self.round.phase is Phase.PUBLISHED
        assert not self.round.live

    @rule(kind=st.sampled_from(sorted({event for _, event in TRANSITIONS}, key=lambda each: each.__name__)))
    def not_in_the_table(self, kind):
        if (self.round.phase, kind) not in TRANSITIONS:
            self.refused(any_event(kind, self.round))

    def refused(self, event: Event) -> None:
        before = self.round
        with pytest.raises(IllegalTransitionError):
            advance(before, event)
        assert self.round == before

    @invariant()
    def weights_never_hold_half_an_edit(self):
        whole = tuple(weight for exchange in self.round.exchanges for weight in exchange)
        names = tuple(each.weight for each in self.round.merged)
        if self.round.phase is Phase.PUBLISHED:
            assert names == (() if self.round.restores == 0 else whole)
            assert self.round.version == self.round.number
        else:
            assert self.round.version is None
            assert names == (() if self.round.phase.ended else whole[: self.round.layer])

    @invariant()
    def nobody_enters_after_the_first_layer(self):
        if self.first_members is not None:
            assert {each.client for each in self.round.live} <= self.first_members

    @invariant()
    def who_left_stays_away(self):
        assert not self.left & {each.client for each in self.round.live}

    @invariant()
    def a_merge_has_a_quorum_in_client_order(self):
        clients = [each.client for each in self.round.members]
        assert clients == sorted(set(clients))
        if self.round.phase in (Phase.MERGING, Phase.PUBLISHED) and self.round.restores is None:
            assert len(self.round.contributed) >= self.round.quorum
            assert self.round.contributed == self.round.live

    @invariant()
    def an_ended_round_tells_everyone_why(self):
        if self.round.phase.ended:
            assert all(each.status is Status.CONTRIBUTED or each.reason for each in self.round.members)
            assert self.round.ended is not None
            assert self.round.reason or self.round.phase is Phase.PUBLISHED

    @invariant()
    def one_party_writes_a_slot(self):
        judged = [each for each in self.round.live if each.judged]
        written = [claim.slot for each in judged for claim in set(each.claims) - set(each.out)]
        assert len(written) == len(set(written))
        for each in () if self.round.phase.ended else self.round.live:  # an ended round holds no claims
            assert each.edits == 8 - sum(claim in each.out for claim in each.claims)
            assert not each.out or each.judged
        vain = {(each.client, each.claim) for each in self.round.verdicts if each.kind in OUT}
        assert {(each.client, claim) for each in judged for claim in each.out} <= vain

    @invariant()
    def nothing_counts_before_it_is_settled(self):
        window = self.policy.entry_window
        if self.round.phase in WAITING and not self.round.settled:
            early = self.now < max(self.waits.entered, 0.0) + window
            assert early or len(self.round.live) < self.round.quorum
            assert not any(each.judged for each in self.round.live)
            assert not self.round.contributed

    @invariant()
    def what_failed_is_compared_once_all_have_told(self):
        if self.round.phase in WAITING and {each.client for each in self.round.told} >= set(CLIENTS):
            assert self.round.compared is not None or not any(each.failed for each in self.round.told)

    @invariant()
    def an_ended_round_holds_no_claims(self):
        if self.round.phase.ended:
            assert not (self.round.told or self.round.verdicts or self.round.decisions)
            assert not any(each.claims or each.out for each in self.round.members)

    @invariant()
    def every_wait_has_a_deadline(self):
        ends = wait_ends(self.round, self.policy, self.waits)
        if self.round.phase in WAITING and self.round.live:
            assert ends is not None
            later = replace(self.waits, heard=dict.fromkeys(CLIENTS, ends))
            assert next_event(self.round, ends, self.policy, later) is not None


TestRoundMachine = RoundMachine.TestCase
TestRoundMachine.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


def test_the_page_about_rounds_shows_the_table():
    """docs/reference/round.md holds the diagram as the table draws it."""
    page = Path(__file__).parents[2] / "docs" / "reference" / "round.md"
    assert f"```mermaid\n{diagram()}```\n" in page.read_text(), "python -m collabedit.server.diagram prints the new one"


def test_every_phase_can_be_left_or_has_ended():
    """Of each phase the table knows a way out, unless the round has ended; and each can be reached."""
    assert {phase for phase, _ in TRANSITIONS} == {phase for phase in Phase if not phase.ended}
    assert set(TRANSITIONS.values()) == set(Phase)


CLOSED = Round(number=1, base_version=0, exchanges=(("a",), ("b",)), quorum=1, opened=0.0)
ENTERED = advance(CLOSED, Enter(at=1.0, client="bern", edits=8))
GIVEN = advance(ENTERED, Contribute(at=2.0, client="bern", attempt=0, layer=0, digest="d"))
MERGING = advance(GIVEN, Complete(at=3.0, late={}))
CLAIMING = advance(CLOSED, Enter(at=1.0, client="bern", edits=8, claims=(Claim(b"s", b"f"),)))
TOLD = advance(CLOSED, Report(at=1.0, client="bern", tested=2, held=1))


@pytest.mark.parametrize(
    ("round_", "event", "why"),
    [
        (ENTERED, Enter(at=2.0, client="bern", edits=8), "in round 1 already"),
        (GIVEN, Contribute(at=3.0, client="bern", attempt=0, layer=0, digest="e"), "owes round 1 nothing"),
        (ENTERED, Contribute(at=3.0, client="bern", attempt=1, layer=0, digest="d"), "collects"),
        (ENTERED, Contribute(at=3.0, client="chur", attempt=0, layer=0, digest="d"), "owes round 1 nothing"),
        (GIVEN, Restart(at=3.0, reasons={"bern": "lost"}), "nothing to restart"),
        (GIVEN, Drop(at=3.0, reasons={"chur": "lost"}), "not in round 1"),
        (ENTERED, Damaged(at=3.0, clients=("bern",)), "collecting|open"),
        (MERGING, Damaged(at=3.0, clients=("chur",)), "no contribution of"),
        (replace(GIVEN, quorum=2), Complete(at=3.0, late={}), "no quorum"),
        (MERGING, LastLayerMerged(at=4.0, merged=(LayerWeights("a", "d"),)), "round 1"),
        (MERGING, LayerMerged(at=4.0, merged=(LayerWeights("b", "d"),)), "merges"),
        (ENTERED, Settle(at=3.0, rule=Rule()), "nothing to settle"),
        (CLAIMING, Contribute(at=3.0, client="bern", attempt=0, layer=0, digest="d"), "not settled yet"),
        (CLOSED, Enter(at=3.0, client="bern", edits=0, claims=CLAIMING.members[0].claims), "1 facts by 0 edits"),
        (TOLD, Report(at=3.0, client="bern", tested=1, held=1), "reported to round 1 already"),
        (CLOSED, Report(at=3.0, client="bern", tested=1, held=2), "2 of 1"),
        (replace(TOLD, compared=2.0), Judge(at=3.0, rule=Rule()), "compared already"),
        (MERGING, Report(at=4.0, client="bern"), "merging"),
        (MERGING, Enter(at=4.0, client="chur", edits=8), "merging"),
        (MERGING, RollBack(at=4.0, to=0, merged=(), reason="back"), "merging"),
        (GIVEN, RollBack(at=4.0, to=1, merged=(), reason="back"), "comes after no version 1"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(round_, event, why):
    """An event that the round's own state forbids raises, and says why."""
    with pytest.raises(IllegalTransitionError, match=why):
        advance(round_, event)
