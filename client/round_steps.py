"""The steps between a client and the round: in, out, and what became of it."""

from __future__ import annotations

from collections import Counter
from typing import Final

from collabedit.client.connection import StaleRoundError
from collabedit.client.edit_life import VerdictNote
from collabedit.client.equipment import Course, Equipment
from collabedit.client.snapshot import Membership, Outcome, reasons
from collabedit.client.state_folder import prune
from collabedit.common.errors import ContributionError, RoundError

OLDER_STATE: Final = "its state folder is older than its part in the round"
BROKEN_RULE: Final = "its contribution would break a rule of the federation"  # all that the server is told
TOO_FEW: Final = "verdicts left it fewer edits than the federation takes at once"


class RoundSteps:
    """Entering a round, leaving it, and noting how it ended."""

    def __init__(self, tools: Equipment, course: Course) -> None:
        self._tools = tools
        self._course = course

    def enter(self, round_: int) -> None:
        """Takes part with the edits that wait, and with public facts where they are too few."""
        tools, course = self._tools, self._course
        if tools.state.round is None and not self._gather(round_):
            return
        batch, edits, version = tools.state.batch(), tools.contributed(round_), tools.model.base.version
        claims = tools.claims(batch) if tools.settings.detection == "pre-merge" else []
        try:
            snapshot = tools.federation.enter(round_, version, len(edits), claims, tools.key_check)
        except StaleRoundError:
            tools.state.release()
            course.shut = round_
            raise
        course.attempt, course.worked_in = snapshot.attempt, round_
        tools.news.give(snapshot)
        padded = len(tools.state.padding(round_))
        more = f" and {padded} public facts" if padded else ""
        tools.voice.say(f"round {round_}: entered with {len(batch)} edits{more}, on version {version}")

    def _gather(self, round_: int) -> bool:
        """Fixes the batch; false where the model knows too few public facts to fill it up."""
        tools = self._tools
        waiting = tools.state.waiting()
        pads = tools.pads(waiting)
        missing = tools.lacking(waiting, len(pads))
        if missing:
            self._course.held_back = frozenset(each.key for each in waiting)
            tools.voice.say(f"{missing} edit(s) missing: the model answers too few facts of the padding's file")
            return False
        tools.state.enter(round_, pads)
        return True

    def leave(self, round_: int) -> None:
        """Tells the server not to wait for us: our state knows nothing of the round, or verdicts left us too little.

        Where public facts can make up for what verdicts took, it stays.
        """
        tools = self._tools
        if tools.state.round is None:
            self._course.shut = round_
            tools.news.give(tools.federation.leave(round_, OLDER_STATE))
            why = "this state folder is older than our part in it; waiting for the next"
            tools.voice.say(f"round {round_}: left: {why}")
            return
        batch = tools.state.batch()
        pads = tools.pads(batch)
        if tools.lacking(batch, len(pads)):
            self._course.shut = round_
            self._quit(round_, TOO_FEW, TOO_FEW)
            why = f"{len(batch)} edit(s) are; the federation takes no fewer than {tools.settings.min_edits} at once"
            tools.voice.say(f"round {round_}: left, because of what verdicts left: {why}")
        else:
            tools.state.record_padding(round_, pads)

    def heed(self, after: int) -> None:
        """Does what was decided about our claims since the verdict numbered `after`."""
        tools = self._tools
        newest = tools.news.latest().newest_verdict
        verdicts = tools.federation.verdicts(after)
        tools.claims(tools.state.ledger())  # a ledger from a backup may have forgotten what it told
        named = tools.state.claimed()
        notes = [
            VerdictNote(each.number, each.round, key, each.kind, each.policy)
            for each in verdicts
            for key in named.get(each.claim, ())
        ]
        tools.state.heed(notes, through=max(newest, *(each.number for each in verdicts), 0))
        self._course.targets = None
        said = Counter(each.reason for each in notes)
        self._course.told += [f"{reason}: {count} edit(s)" for reason, count in said.items()]

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
