"""What an editor is: the update that keys and residuals of a layer ask for, whoever holds them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from torch import Tensor

from collabedit.common.contribution import Dense, Factored, LayerUpdate
from collabedit.common.linalg import as_float64
from collabedit.common.pairs import EditorName
from collabedit.common.prior import Prior


class Editor(Protocol):
    """One closed form from (K, R) to Δ. Implementations are frozen dataclasses that hold the editor's own constants.

    They never see K and R apart: a pair (R̃, L) with L Lᵀ = K Kᵀ and R̃ Lᵀ = R Kᵀ gives the same Δ, and so do the stacked
    pairs of several parties. That is what makes a merge exact, and what an editor must have to be one here.
    """

    @property
    def name(self) -> EditorName:
        """The editor's name in settings and commands."""

    def solve(self, prior: Prior, updates: Iterable[LayerUpdate], *, what: str) -> Tensor:
        """Δ of one party that holds all edits of `updates`, [d_out, d_in], float64.

        Updates of either encoding, one in memory at a time, taken in the order given; a dense one must be this
        editor's own, made with the same prior. The prior is left as it is. Raises NotPositiveDefiniteError that names
        `what`, ValueError where there is no update.
        """


def unsplit(keys: Tensor, residuals: Tensor) -> Factored:
    """K [d_in, M] and R [d_out, M] themselves as the pair of a party that keeps it: never to be uploaded. float64."""
    return Factored(residual_factor=as_float64(residuals), kkt_factor=as_float64(keys))


def in_full(editor: Editor, prior: Prior, update: LayerUpdate, *, what: str = "the layer") -> Dense:
    """The same information in the dense encoding, float64. Raises as `Editor.solve`."""
    return Dense(delta=editor.solve(prior, [update], what=what), kkt_matrix=update.kkt())
