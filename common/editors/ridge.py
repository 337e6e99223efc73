"""Least squares with κI in place of C: how editors that are hyper-networks weigh what the model knows.

MALMEN (Tan et al., ICLR 2024) joins the shifts that its hyper-network gives for single edits by Δ = R Kᵀ (κI + K Kᵀ)⁻¹.
The paper's Algorithm 1 merges such updates with κI for C (lines 7 and 12): A = κI + ΣSᵢ, G = ΣΔᵢ(κI + Sᵢ). The
hyper-network is not here: K and R are MEMIT's where this package makes them, or whatever made a contribution.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

import torch
from torch import Tensor

from collabedit.common.contribution import Factored, LayerUpdate
from collabedit.common.editors.memit import MEMIT
from collabedit.common.pairs import EditorName
from collabedit.common.prior import Prior


@dataclass(frozen=True)
class Ridge:
    """Δ = R Kᵀ (κI + β1·S_past + K Kᵀ)⁻¹. kappa κ: `kappa` of the hyperparameters. C0, λ and β0 play no part."""

    kappa: float = 1.0
    name: EditorName = "ridge"

    def solve(self, prior: Prior, updates: Iterable[LayerUpdate], *, what: str) -> Tensor:
        """MEMIT's with κI for β0·λ·C0, as `Editor.solve`."""
        ordered = iter(updates)
        first = next(ordered, None)
        if first is None:
            raise ValueError(f"{what}: nothing to merge")
        eye = partial(torch.eye, first.shape[1], dtype=torch.float64, device=_device(first))
        flat = replace(prior, given=eye, update_weight=self.kappa, beta0=1.0, kept=None)
        return MEMIT.solve(flat, chain([first], ordered), what=what)


def _device(update: LayerUpdate) -> torch.device:
    """Where an update lies."""
    return update.kkt_factor.device if isinstance(update, Factored) else update.delta.device
