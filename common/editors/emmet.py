"""EMMET (Gupta et al., 2024): edits as equalities, with the least disturbance of what is known; ROME is one of them.

Δ K = R exactly, and tr(Δ C Δᵀ) is the least there is: Δ = R (Kᵀ C⁻¹ K)⁻¹ Kᵀ C⁻¹. λ cancels.

Where keys depend on each other the equalities may contradict, and no Δ holds them all. Then Δ is the one of least
‖Δ K − R‖, and among those of least tr(Δ C Δᵀ): the limit of MEMIT as λ → 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.linalg import solve_triangular

from collabedit.common.contribution import Factored, LayerUpdate
from collabedit.common.factors import factor_psd
from collabedit.common.linalg import as_float64
from collabedit.common.pairs import EditorName
from collabedit.common.prior import Prior

DEPENDENT: Final = 1e-6  # of the stacked keys' largest singular value: float32's rounding of L makes 1e-7
DENSE_TOLERANCE: Final = {torch.float32: 1e-6, torch.float64: 1e-13}  # of S's largest eigenvalue: rounding makes less


@dataclass(frozen=True)
class Emmet:
    """Δ U = W for an orthonormal basis U of the keys. With C = F Fᵀ and F⁻¹ U = Q T: Δ = W T⁻¹ Qᵀ F⁻¹.

    Solved so, and not by the Gram matrix Kᵀ C⁻¹ K, whose condition is the square of F⁻¹ U's.
    """

    name: EditorName = "emmet"

    def solve(self, prior: Prior, updates: Iterable[LayerUpdate], *, what: str) -> Tensor:
        """Of the stacked L = [L₁ L₂ …] and R̃ = [R̃₁ R̃₂ …]: as `Editor.solve`. L = K Q, R̃ = R Q with orthonormal Q."""
        pairs = [equalities(update) for update in updates]
        if not pairs:
            raise ValueError(f"{what}: nothing to merge")
        basis, wanted = independent(
            torch.cat([each.kkt_factor for each in pairs], 1), torch.cat([each.residual_factor for each in pairs], 1)
        )
        factor = prior.factor(what=f"C of {what}").factor
        Q, T = torch.linalg.qr(solve_triangular(factor, basis, upper=False))
        rows = solve_triangular(T, wanted, upper=True, left=False)
        update: Tensor = solve_triangular(factor, rows @ Q.mT, upper=False, left=False)
        return update


@dataclass(frozen=True)
class Rome(Emmet):
    """ROME (Meng et al., NeurIPS 2022): one edit, Δ = r (C⁻¹k)ᵀ / (kᵀC⁻¹k). Several parties' merge as EMMET's do."""

    name: EditorName = "rome"


def equalities(update: LayerUpdate) -> Factored:
    """The equalities Δ L = R̃ of an upload, float64. Of a dense one R̃ = Δ L, as its Δ holds them: Δ K = R."""
    if isinstance(update, Factored):
        return update.to(torch.float64)
    factor = factor_psd(update.kkt(), tolerance=DENSE_TOLERANCE[update.dtype])
    return Factored(residual_factor=as_float64(update.delta) @ factor, kkt_factor=factor)


def independent(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Δ keys = values as Δ U = W: U [d_in, r] orthonormal, W [d_out, r]; r is the rank by DEPENDENT. float64.

    Least squares where the equalities contradict: of two values for one key, W has the mean.
    """
    U, sizes, Vh = torch.linalg.svd(keys, full_matrices=False)
    rank = int((sizes > DEPENDENT * sizes[0]).sum())
    return U[:, :rank], (values @ Vh[:rank].mT) / sizes[:rank]


def rank_of(update: LayerUpdate) -> int:
    """How many equalities of an upload are independent."""
    pair = equalities(update)
    return independent(pair.kkt_factor, pair.residual_factor)[0].shape[1]
