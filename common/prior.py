"""What a layer knows before an edit: the mean covariance of its inputs, and the keys of the rounds before (eq. 7)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from collabedit.common.linalg import Cholesky, as_float64


@dataclass(frozen=True)
class Prior:
    """C = β0·λ·C0 + β1·L Lᵀ of one layer: the weight of what the model knows. Equal to the bit on every party.

    mean C0: [d_in, d_in], symmetric; update_weight λ: MEMIT's `mom2_update_weight`; accumulated L: [d_in, r], eigen-
    factors of Σ_τ Σᵢ S of the rounds before, or None at round 0. The parts are kept apart: one editor solves with C,
    another with C0's eigenvectors and the past alone.
    """

    mean: Tensor
    update_weight: float = 1.0
    beta0: float = 1.0
    accumulated: Tensor | None = None
    beta1: float = 1.0

    @property
    def past(self) -> Tensor | None:
        """L of the rounds before, [d_in, r], float64; None where there is none or β1 is 0."""
        return None if self.accumulated is None or self.beta1 == 0.0 else as_float64(self.accumulated)

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues of C0, ascending, [d_in], and eigenvectors in columns, [d_in, d_in]; float64, computed once."""
        values, vectors = torch.linalg.eigh(as_float64(self.mean))
        return values, vectors

    def dense(self) -> Tensor:
        """C, [d_in, d_in], float64: a new tensor, the caller's own."""
        weighted = as_float64(self.mean) * (self.beta0 * self.update_weight)
        past = self.past
        if past is not None:
            torch.addmm(weighted, past, past.mT, alpha=self.beta1, out=weighted)
        return weighted

    def add_product_to(self, into: Tensor, rows: Tensor) -> None:
        """into += rows C, in place, without forming C; rows: [n, d_in], into: [n, d_in], float64."""
        rows, past = as_float64(rows), self.past
        into.addmm_(rows, as_float64(self.mean), alpha=self.beta0 * self.update_weight)
        if past is not None:
            into.addmm_(rows @ past, past.mT, alpha=self.beta1)

    def factor(self, *, what: str = "C") -> Cholesky:
        """The Cholesky factor of C. Raises NotPositiveDefiniteError that names `what`."""
        return Cholesky.of(self.dense(), what=what, overwrite=True)
