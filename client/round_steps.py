"""The steps between a client and the round: in, out, and what became of it."""

from __future__ import annotations

from typing import Final

from collabedit.client.connection import StaleRoundError
from collabedit.client.equipment import Course, Equipment
from collabedit.client.snapshot import Membership, Outcome, reasons
from collabedit.client.state_folder import prune
from collabedit.common.errors import ContributionError, RoundError

OLDER_STATE: Final = "its state folder is older than its part in the round"
BROKEN_RULE: Final = "its contribution would break a rule of the federation"  # all that the server is told


class RoundSteps:
    """Entering a round, leaving it, and noting how it ended."""

    def __init__(self, tools: Equipment, course: Course) -> None:
        self._tools = tools
        self._course = course

    def enter(self, round_: int) -> None:
        """Takes part with the edits that wait."""
        tools, course = self._tools, self._course
        batch, version = tools.state.enter(round_), tools.model.base.version
        try:
            snapshot = tools.federation.enter(round_, version, len(batch))
        except StaleRoundError:
            tools.state.release()
            course.shut = round_
            raise
        course.attempt, course.worked_in = snapshot.attempt, round_
        tools.news.give(snapshot)
        tools.voice.say(f"round {round_}: entered with {len(batch)} edits, on version {version}")

    def leave(self, round_: int) -> None:
        """Tells the server not to wait for what this state folder knows nothing of."""
        tools = self._tools
        self._course.shut = round_
        tools.news.give(tools.federation.leave(round_, OLDER_STATE))
        tools.voice.say(f"round {round_}: left: this state folder is older than our part in it; waiting for the next")

    def settle(self, round_: int) -> None:
        """Notes how the round ended: our edits are merged, or wait again."""
        tools, course = self._tools, self._course
        outcome = self._outcome(round_)
        course.forget_round()
        if outcome is None:
            tools.state.release()
            course.shut = tools.news.latest().round
            tools.voice.say(f"round {round_}: closed before this client was in; the edits wait for the next")
        else:
            tools.state.settle(outcome)
            if not outcome.merged:
                course.lost = outcome if round_ == course.worked_in else None
                why = outcome.reason or outcome.phase.name.lower().replace("_", " ")
                tools.voice.say(f"round {round_}: ended without our edits: {why}; they wait for the next")
        prune(tools.folder.outbox, ())

    def _outcome(self, round_: int) -> Outcome | None:
        """How the round ended for us; None where it never had us."""
        now = self._tools.news.latest()
        if now.round != round_:
            outcome = self._tools.federation.outcome(round_)
        else:
            outcome = Outcome(round_, now.phase, now.member, now.latest_version, reasons(now.reason, now.member_reason))
        return outcome if outcome and outcome.member is not Membership.ABSENT else None

    def restart(self, attempt: int) -> None:
        """A new attempt of the round: the base version's weights."""
        if attempt and self._tools.model.applied:
            said = f"round {self._tools.state.round}: a member was lost; again from the first layer"
            self._tools.voice.say(said)
        self._tools.model.restart()
        self._course.attempt = attempt

    def withdraw(self, error: ContributionError) -> None:
        """Leaves the round; these edits are not tried again before the file has changed."""
        tools, course = self._tools, self._course
        round_ = tools.state.round
        assert round_ is not None
        course.held_back = frozenset(each.key for each in (*tools.state.batch(), *tools.state.waiting()))
        course.refused, course.shut = error, round_
        tools.voice.say(error.diagnostics())
        self._quit(round_, BROKEN_RULE, error.what)

    def _quit(self, round_: int, told: str, reason: str) -> None:
        """Out of the round that we are in. told: to the server; reason: to the ledger."""
        tools = self._tools
        try:
            now = tools.federation.leave(round_, told)
        except RoundError:
            now = tools.federation.now()
        tools.state.settle(Outcome(round_, now.phase, Membership.OUT, now.base_version, reason))
        self._course.forget_round()
        tools.model.restart()
        tools.news.give(now)
