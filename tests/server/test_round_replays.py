"""Calls that come again: whatever has happened since, a call has its effect once, or is refused by name."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from collabedit.server.asked import Decision, aborting, contributing, entering, leaving, reporting, rolling_back
from collabedit.server.events import Abort, Event, LastLayerMerged, LayerMerged
from collabedit.server.policy import Policy, Waits, losing, next_event
from collabedit.server.refusals import CountedRefusal, Refusal, StaleRoundRefusal, StaleVersionRefusal
from collabedit.server.rounds import LayerWeights, Phase, Round, Status
from collabedit.server.transitions import advance

CLIENTS = ("arosa", "bern", "chur")
EXCHANGES = (("a",), ("b",))
PATIENT = Policy(entry_window=0, round_deadline=1e9, layer_deadline=1e9, liveness=1e9)
NAMED = (StaleRoundRefusal, StaleVersionRefusal, CountedRefusal)


@dataclass(frozen=True)
class Call:
    """A call that was carried out: who made it, of which kind, in which round, and what the server decides about it."""

    client: str
    kind: str
    round: int
    decision: Decision


class Replays(RuleBasedStateMachine):
    """Rounds go by, and calls that were answered long ago arrive once more."""

    @initialize(quorum=st.integers(1, 2))
    def begin(self, quorum):
        self.quorum = quorum
        self.version = 0
        self.done: list[Call] = []
        self.lost: set[tuple[int, str]] = set()
        self.open(1)

    def open(self, number: int) -> None:
        self.round = Round(number, self.version, EXCHANGES, self.quorum, 0.0)

    def happens(self, event: Event | None) -> None:
        while event is not None:
            self.round = advance(self.round, event)
            if self.round.phase.ended:
                self.version = self.round.version or self.version
                self.open(self.round.number + 1)
            event = next_event(self.round, 0.0, PATIENT, Waits(0.0))

    def asks(self, client: str, kind: str, decision: Decision) -> None:
        number = self.round.number
        try:
            event = decision(self.round, 0.0)
        except Refusal:
            return
        self.happens(event)
        self.done.append(Call(client, kind, number, decision))

    @rule(client=st.sampled_from(CLIENTS))
    def enter(self, client):
        self.asks(client, "enter", entering(client, self.round.number, self.version, 8))

    @rule(client=st.sampled_from(CLIENTS))
    def contribute(self, client):
        here = (self.round.number, self.round.attempt, self.round.layer)
        self.asks(client, "contribute", contributing(client, *here, f"{client}{here}"))

    @rule(client=st.sampled_from(CLIENTS))
    def leave(self, client):
        self.asks(client, "leave", leaving(client, self.round.number, "left"))

    @rule(client=st.sampled_from(CLIENTS), held=st.integers(0, 8))
    def report(self, client, held):
        self.asks(client, "report", reporting(client, self.round.number, self.version, 8, held, ()))

    @rule(client=st.sampled_from(CLIENTS))
    def lose(self, client):
        live = {each.client for each in self.round.live}
        if client in live and self.round.phase is not Phase.MERGING:
            self.lost.add((self.round.number, client))
            self.happens(losing(self.round, {client: "silent"}, 0.0))

    @rule()
    def abort(self):
        self.asks("admin", "abort", aborting(self.round.number, "enough"))

    @rule()
    def roll_back(self):
        layers = tuple(LayerWeights(each, "v0") for exchange in EXCHANGES for each in exchange)
        self.asks("admin", "roll back", rolling_back(max(0, self.version - 1), layers, self.version, "back"))

    @rule(good=st.booleans())
    def merge(self, good):
        if self.round.phase is Phase.MERGING:
            merged = tuple(LayerWeights(each, "d") for each in self.round.exchanges[self.round.layer])
            kind = LastLayerMerged if self.round.last_layer else LayerMerged
            self.happens(kind(at=0.0, merged=merged) if good else Abort(at=0.0, reason="bad"))

    @rule(data=st.data())
    def comes_again(self, data):
        if not self.done:
            return
        call = data.draw(st.sampled_from(self.done))
        try:
            event = call.decision(self.round, 0.0)
        except NAMED:
            return
        assert event is None or self.may_enter_again(call), (call.kind, event)

    def may_enter_again(self, call: Call) -> bool:
        """A client that was lost, and did not leave, may come back into the first layer, by the same call."""
        member = self.round.member(call.client)
        came_back = call.kind == "enter" and (call.round, call.client) in self.lost
        return came_back and member is not None and member.status is Status.OUT

    @invariant()
    def an_older_round_is_refused(self):
        for call in self.done[-20:]:
            if call.round == self.round.number or call.kind == "roll back":
                continue
            try:
                call.decision(self.round, 0.0)
            except StaleRoundRefusal as refused:
                assert refused.name == "stale-round"
            else:
                raise AssertionError(f"{call.kind} of round {call.round} is taken in round {self.round.number}")


TestReplays = Replays.TestCase
TestReplays.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
