"""AlphaEdit (Fang et al., ICLR 2025): only where what the model knows has next to no weight.

P = U Uᵀ projects on the eigenvectors of C0 (the mean, not λ·C0) whose eigenvalues are below a threshold:
Δ = R Kᵀ P ((S + S_past) P + L2·I)⁻¹, so that Δ (I − P) = 0. In U's coordinates this is symmetric:
Δ = R Kᵀ U (Uᵀ (S + S_past) U + L2·I)⁻¹ Uᵀ, a Cholesky factor of U's size. S_past is ΣS of the rounds before, times β1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from collabedit.common import triangle
from collabedit.common.condition import System
from collabedit.common.contribution import Factored, LayerUpdate
from collabedit.common.errors import UsageError
from collabedit.common.linalg import Cholesky, as_float64
from collabedit.common.pairs import EditorName
from collabedit.common.prior import Prior


@dataclass(frozen=True)
class AlphaEdit:
    """threshold: `nullspace_threshold` of AlphaEdit's files, absolute; ridge: their `L2`. λ and β0 play no part."""

    threshold: float = 2e-2
    ridge: float = 10.0
    name: EditorName = "alphaedit"

    def solve(self, prior: Prior, updates: Iterable[LayerUpdate], *, what: str) -> Tensor:
        """Δ = (Σᵢ Gᵢ U) (Uᵀ (ΣSᵢ + S_past) U + L2·I)⁻¹ Uᵀ, as `Editor.solve`. Raises UsageError where P is 0."""
        U = null_space(prior, self.threshold, what=what)
        known = self._known(U, prior)
        gram, moment = known.clone(), None
        for update in updates:
            kkt = _projected_kkt(U, update)
            if moment is None:
                moment = torch.zeros(update.shape[0], U.shape[1], dtype=torch.float64, device=U.device)
            if isinstance(update, Factored):
                moment += as_float64(update.residual_factor) @ (as_float64(update.kkt_factor).mT @ U)
            else:
                moment += (as_float64(update.delta) @ U) @ (known + kkt)  # Δ U = G U (known + UᵀSU)⁻¹
            gram += kkt
        if moment is None:
            raise ValueError(f"{what}: nothing to merge")
        root = Cholesky.of(gram, what=f"UᵀKKᵀU + L2 of {what}", overwrite=True)
        prior.tell(lambda: System.of(root))
        return root.solve_right(moment) @ U.mT

    def _known(self, U: Tensor, prior: Prior) -> Tensor:
        """Uᵀ S_past U + L2·I, [k, k], float64."""
        known = self.ridge * torch.eye(U.shape[1], dtype=torch.float64, device=U.device)
        if prior.past is not None:
            past = U.mT @ prior.past
            known.addmm_(past, past.mT, alpha=prior.beta1)
        if prior.past_triangle is not None:
            product = torch.zeros(U.shape[::-1], dtype=torch.float64, device=U.device)
            triangle.add_product_(product, U.mT.contiguous(), prior.past_triangle)
            known.addmm_(product, U, alpha=prior.beta1)
        return known


def null_space(prior: Prior, threshold: float, *, what: str) -> Tensor:
    """Eigenvectors U [d_in, k] of C0 whose eigenvalues are below `threshold`, float64; P = U Uᵀ is the same for any U.

    Raises UsageError that names `what` where there are none.
    """
    values, vectors = prior.spectrum
    below = int((values < threshold).sum())
    if not below:
        least = float(values[0])
        raise UsageError(
            f"{what}: no eigenvalue of C0 is below nullspace_threshold {threshold:g}; the least is {least:.3g}",
            mend="raise nullspace_threshold in the hyperparameters",
        )
    return vectors[:, :below]


def _projected_kkt(U: Tensor, update: LayerUpdate) -> Tensor:
    """Uᵀ S U, [k, k], float64."""
    if isinstance(update, Factored):
        thin = U.mT @ as_float64(update.kkt_factor)
        return thin @ thin.mT
    return U.mT @ update.kkt() @ U
