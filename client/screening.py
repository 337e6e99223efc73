"""Which edits the model holds already: a threshold on residuals, drawn from the federation's own history. Pure.

Repeating an edit shrinks its residual ‖z − h‖ (paper eq. 6). By how much differs from model to model and from one set
of hyperparameters to the next, so no constant would do: this client's own edits are measured before they are merged
("fresh") and, a sample of them, after ("held").
"""

from __future__ import annotations

from collections.abc import Sequence
from math import nextafter
from typing import TYPE_CHECKING, Any, Final

from collabedit.common.edits import Edit

if TYPE_CHECKING:
    from collabedit.client.metrics import EditScore

LEAST: Final = 4  # residuals of either kind; with fewer there is no history to speak of
NEWEST: Final = 256  # residuals of either kind that count: the model, and with it its residuals, moves on
STRAY: Final = 0.05  # share of the fresh edits that may lie below the threshold, and of the held ones above it
SAMPLE: Final = 8  # held edits whose residual is measured on a version where one is needed


def calibrate(fresh: Sequence[float], held: Sequence[float]) -> float:
    """The greatest residual of an edit that counts as known, between those of fresh edits and of held ones.

    Both oldest first, ‖z − h‖ ≥ 0. Half way between what nearly all held edits lie below and what nearly all fresh ones
    lie above. Where the two overlap, below nearly all fresh ones: to edit a fact twice costs less than to leave one
    out. 0 without a history: then only an edit is known whose search for z stops at once.
    """
    fresh, held = sorted(fresh[-NEWEST:]), sorted(held[-NEWEST:])
    if min(len(fresh), len(held)) < LEAST:
        return 0.0
    low = fresh[int(STRAY * len(fresh))]
    high = held[-1 - int(STRAY * len(held))]
    if high < low:
        return min((high + low) / 2, nextafter(low, high))
    return max((each for each in fresh if each < low), default=0.0)


def answered(score: EditScore) -> bool:
    """Whether the model says the new target by itself, each token first, and rather than the true one."""
    return score.correct == 1.0 and score.succeeded


def bare(edit: Edit) -> Edit:
    """The edit without the prompts that it is judged by beside its own."""
    none: dict[str, Any] = {"paraphrase_prompts": (), "neighborhood_prompts": (), "unrelated": ()}
    return edit.model_copy(update=none)


def known(score: EditScore, residual: float, threshold: float) -> bool:
    """Whether the model holds an edit: it answers with it, and what is left to move its state by is small enough."""
    return answered(score) and residual <= threshold
