"""MEMIT (Meng et al., ICLR 2023): least squares between what the model knows and the edits (eq. 2 and 17)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from collabedit.common.contribution import LayerUpdate
from collabedit.common.editors.normal_equations import NormalEquations
from collabedit.common.pairs import EditorName
from collabedit.common.prior import Prior


@dataclass(frozen=True)
class Memit:
    """Δ = R Kᵀ (C + K Kᵀ)⁻¹. PMET is the same with the square-root shares of the residual."""

    name: EditorName = "memit"

    def solve(self, prior: Prior, updates: Iterable[LayerUpdate], *, what: str) -> Tensor:
        """Δ = (Σᵢ Δᵢ(C + Sᵢ)) (C + Σᵢ Sᵢ)⁻¹, as `Editor.solve`."""
        sums = NormalEquations(prior, what=what)
        for update in updates:
            sums.add(update)
        return sums.solve()


MEMIT: Final = Memit()
