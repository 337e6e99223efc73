"""The steps that `decide` names, done: one method each, each repeatable after a kill at any instant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from collabedit.client.decide import Act, Action, Place
from collabedit.client.edit_life import WAITING, EditStatus
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
            unscored=state.count([EditStatus.MERGED]) > 0,
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
            owes=state.ever_merged,
            starved=round_ is not None and course.targets is None and self._starved(round_),
            detection=tools.settings.detection,
        )

    def _ready(self) -> bool:
        """Enough edits wait, and not only those that were refused before."""
        return not self._tried() and not self._tools.intake.blocked and self.lacking() == 0

    def _tried(self) -> bool:
        """Those that wait are those that were refused."""
        state, refused = self._tools.state, self.course.held_back
        return state.count(WAITING) == len(refused) and state.keys(WAITING) == refused

    def lacking(self) -> int:
        """How many edits more must wait before a round is entered, as far as can be told beforehand.

        Each that waits is one at least: they are read only where they are fewer than a round takes.
        """
        tools = self._tools
        count = tools.state.count(WAITING)
        if count >= tools.settings.min_edits:
            return 0
        return tools.lacking(tools.state.waiting(), 0 if not count or self._tried() else len(tools.padding))

    def _starved(self, round_: int) -> bool:
        least = self._tools.settings.min_edits
        return self._tools.state.count([EditStatus.ENTERED]) < least and len(self._tools.contributed(round_)) < least

    def _written(self, round_: int) -> frozenset[int]:
        written = self._tools.state.contributions(round_, self.course.attempt)
        return frozenset(layer for layer, digest in written.items() if self._tools.outbox(digest).is_file())

    def do(self, action: Action) -> None:
        """Does one step. Raises WorldMovedError where the round went on meanwhile, CollabEditError otherwise."""
        self._doing[action.act](action.subject)
