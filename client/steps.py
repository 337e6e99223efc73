"""The steps that `decide` names, done: one method each, each repeatable after a kill at any instant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from collabedit.client.decide import Act, Action, Place
from collabedit.client.edit_life import LedgerEntry
from collabedit.client.editing_steps import EditingSteps
from collabedit.client.equipment import Course, Equipment, WorldMovedError
from collabedit.client.looking_back import LookingBack
from collabedit.client.round_steps import RoundSteps

__all__ = ["Steps", "WorldMovedError"]


class Steps:
    """One client's steps; `course` says what came of them."""

    def __init__(self, tools: Equipment) -> None:
        self._tools = tools
        self.course: Final = Course()
        rounds = RoundSteps(tools, self.course)
        editing = EditingSteps(tools, self.course, rounds.withdraw)
        back = LookingBack(tools, self.course)
        self._doing: Mapping[Act, Callable[[int], None]] = {
            Act.SETTLE: rounds.settle,
            Act.CATCH_UP: editing.catch_up,
            Act.HEED: rounds.heed,
            Act.SCREEN: back.screen,
            Act.ENTER: rounds.enter,
            Act.LEAVE: rounds.leave,
            Act.SCORE: back.score,
            Act.REPORT: back.report,
            Act.RESTART: rounds.restart,
            Act.FIND_TARGETS: editing.find_targets,
            Act.APPLY: editing.apply,
            Act.EDIT: editing.edit,
            Act.SEND: editing.send,
        }

    def place(self) -> Place:
        """Where this client stands: read from its ledger, its outbox and its model."""
        tools, course = self._tools, self.course
        state, round_, version = tools.state, tools.state.round, tools.model.base.version
        return Place(
            version=version,
            ready=round_ is None and self._ready(),
            unscored=bool(state.unscored()),
            round=round_,
            attempt=course.attempt,
            targets=course.targets is not None,
            applied=tools.model.applied,
            written=self._written(round_) if round_ is not None else frozenset(),
            shut=course.shut,
            heeded=state.heeded,
            unscreened=round_ is None and tools.skip_known and not state.is_screened(version),
            measured=version == 0 or state.retained(version) is not None,
            reported=state.reported,
            owes=any(each.outcome == "merged" for each in state.rounds()),
            starved=round_ is not None and course.targets is None and self._starved(round_),
            detection=tools.settings.detection,
        )

    def _ready(self) -> bool:
        """Enough edits wait, and not only those that were refused before."""
        waiting = self._tools.state.waiting()
        new = frozenset(each.key for each in waiting) != self.course.held_back
        return new and not self._tools.intake.blocked and self.lacking(waiting) == 0

    def lacking(self, waiting: Sequence[LedgerEntry]) -> int:
        """How many edits more must wait before a round is entered with these, as far as can be told beforehand."""
        tried = frozenset(each.key for each in waiting) == self.course.held_back
        return self._tools.lacking(waiting, 0 if tried or not waiting else len(self._tools.padding))

    def _starved(self, round_: int) -> bool:
        return len(self._tools.contributed(round_)) < self._tools.settings.min_edits

    def _written(self, round_: int) -> frozenset[int]:
        written = self._tools.state.contributions(round_, self.course.attempt)
        return frozenset(layer for layer, digest in written.items() if self._tools.outbox(digest).is_file())

    def do(self, action: Action) -> None:
        """Does one step. Raises WorldMovedError where the round went on meanwhile, CollabEditError otherwise."""
        self._doing[action.act](action.subject)
