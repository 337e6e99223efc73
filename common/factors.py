"""From keys and residuals to what a client uploads: thin factors that are functions of (Δ, S, C) alone.

S = K Kᵀ = V Λ Vᵀ and L = V √Λ, so that S = L Lᵀ; R̃ = R (Kᵀ V Λ^-½), so that R̃ Lᵀ = R Kᵀ: with MEMIT, Δ (C + S).
L is computed from S, never from K: whatever K Q (Q Qᵀ = I) a client holds, it uploads the same factors (eq. 9).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import torch
from torch import Tensor

from collabedit.common.contribution import Factored, LayerUpdate
from collabedit.common.errors import NotPositiveDefiniteError
from collabedit.common.linalg import as_float64

EIGENVALUE_TOLERANCE: Final = 1e-15  # of the largest eigenvalue: float64's rounding of S leaves nothing below it
NEGATIVE_TOLERANCE: Final = 1e-6  # float32's rounding of S makes eigenvalues this far below 0, relative to the largest


def eigen_psd(matrix: Tensor, *, tolerance: float = EIGENVALUE_TOLERANCE) -> tuple[Tensor, Tensor]:
    """Eigenvectors [d, r] and eigenvalues [r] of a positive semi-definite matrix [d, d], in float64.

    Eigenvalues descend and are above `tolerance` × the largest. Each eigenvector's entry of largest magnitude (the
    first of equals) is positive; a row of the matrix that is zero is zero in them to the bit.
    Raises NotPositiveDefiniteError for an eigenvalue below 0 by more than rounding.
    """
    values, vectors = torch.linalg.eigh(as_float64(matrix))
    values, vectors = values.flip(0), vectors.flip(1)
    largest = float(values[0])
    if float(values[-1]) < -NEGATIVE_TOLERANCE * max(largest, 0.0):
        raise NotPositiveDefiniteError(f"KKᵀ has the eigenvalue {float(values[-1]):.3e} and is not semi-definite")
    rank = int((values > tolerance * largest).sum())
    values, vectors = values[:rank], vectors[:, :rank]
    vectors[matrix.diagonal() == 0] = 0.0  # a semi-definite matrix's row is zero where its diagonal is
    peaks = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return vectors * peaks.sign(), values


def factor_psd(matrix: Tensor, *, tolerance: float = EIGENVALUE_TOLERANCE) -> Tensor:
    """The eigen-factor L = V √Λ of S = L Lᵀ: [d_in, d_in] → [d_in, r], float64; r is S's numerical rank.

    Order, sign and errors as in `eigen_psd`.
    """
    vectors, values = eigen_psd(matrix, tolerance=tolerance)
    return vectors * values.sqrt()


def factor_update(keys: Tensor, residuals: Tensor, *, tolerance: float = EIGENVALUE_TOLERANCE) -> Factored:
    """One layer's update in factored form, float64, from what never leaves the client.

    keys K: [d_in, M]; residuals R: [d_out, M]. The result's rank is at most M and at most d_in. The factor
    Kᵀ V Λ^-½ has orthonormal columns, so nothing is lost by the division by √Λ.
    """
    K, R = as_float64(keys), as_float64(residuals)
    vectors, values = eigen_psd(K @ K.mT, tolerance=tolerance)
    rank = min(len(values), K.shape[1])
    vectors, scale = vectors[:, :rank], values[:rank].sqrt()
    return Factored(residual_factor=R @ ((K.mT @ vectors) / scale), kkt_factor=vectors * scale)


def accumulate_kkt(previous: Tensor | None, updates: Iterable[LayerUpdate], *, d_in: int) -> Tensor:
    """Eigen-factors L [d_in, r], float64, of Σ_τ Σᵢ S: `previous` (L of the earlier rounds, or none) and `updates`.

    A function of the sum alone, so that it shows no single party's S (eq. 7). Updates are summed in the order given.
    """
    total = torch.zeros(d_in, d_in, dtype=torch.float64)
    if previous is not None:
        total.addmm_(as_float64(previous), as_float64(previous).mT)
    for update in updates:
        update.add_kkt_to(total)
    return factor_psd(total)
