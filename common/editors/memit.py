"""MEMIT (Meng et al., ICLR 2023): least squares between what the model knows and the edits (eq. 2 and 17)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from collabedit.common.contribution import Factored, LayerUpdate
from collabedit.common.linalg import Cholesky, as_float64
from collabedit.common.pairs import EditorName
from collabedit.common.prior import Prior


@dataclass(frozen=True)
class Memit:
    """Δ = R Kᵀ (C + K Kᵀ)⁻¹. PMET is the same with the square-root shares of the residual."""

    name: EditorName = "memit"

    def solve(self, prior: Prior, updates: Iterable[LayerUpdate], *, what: str) -> Tensor:
        """Δ = (Σᵢ Δᵢ(C + Sᵢ)) (C + Σᵢ Sᵢ)⁻¹, as `Editor.solve`: two matrices [d_in, d_in] in memory, C0 and C + ΣS."""
        gram, moment = prior.dense(), None
        for update in updates:
            if moment is None:
                moment = torch.zeros(update.shape, dtype=torch.float64, device=gram.device)
            add_moment(moment, update, prior)  # G += Δᵢ(C + Sᵢ)
            update.add_kkt_to(gram)  # A += Sᵢ
        if moment is None:
            raise ValueError(f"{what}: nothing to merge")
        return Cholesky.of(gram, what=f"C + KKᵀ of {what}", overwrite=True).solve_right(moment)  # Δ = G A⁻¹


MEMIT: Final = Memit()


def add_moment(moment: Tensor, update: LayerUpdate, prior: Prior) -> None:
    """moment += Δ (C + S) = R Kᵀ, in place; float64 [d_out, d_in]. Factors need no prior; C + S is never formed."""
    if isinstance(update, Factored):
        moment.addmm_(as_float64(update.residual_factor), as_float64(update.kkt_factor).mT)
        return
    delta = as_float64(update.delta)
    prior.add_product_to(moment, delta)
    update.add_delta_kkt_to(moment)
