"""The steps that `decide` names, done: one method each, each repeatable after a kill at any instant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from collabedit.client.decide import Act, Action, Place
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
            Act.ENTER: rounds.enter,
            Act.LEAVE: rounds.leave,
            Act.SCORE: back.score,
            Act.RESTART: rounds.restart,
            Act.FIND_TARGETS: editing.find_targets,
            Act.APPLY: editing.apply,
            Act.EDIT: editing.edit,
            Act.SEND: editing.send,
        }

    def place(self) -> Place:
        """Where this client stands: read from its ledger, its outbox and its model."""
        tools, course = self._tools, self.course
        state, round_ = tools.state, tools.state.round
        written = state.contributions(round_, course.attempt) if round_ is not None else {}
        waiting = frozenset(each.key for each in state.waiting())
        enough = len(waiting) >= tools.settings.min_edits and waiting != course.held_back
        return Place(
            version=tools.model.base.version,
            ready=enough and not tools.intake.blocked,
            unscored=bool(state.unscored()),
            round=round_,
            attempt=course.attempt,
            targets=course.targets is not None,
            applied=tools.model.applied,
            written=frozenset(layer for layer, digest in written.items() if tools.outbox(digest).is_file()),
            shut=course.shut,
        )

    def do(self, action: Action) -> None:
        """Does one step. Raises WorldMovedError where the round went on meanwhile, CollabEditError otherwise."""
        self._doing[action.act](action.subject)
