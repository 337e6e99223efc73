"""What a check needs to know of a symmetric matrix's eigenvalues, without computing them all.

All eigenvalues take some ten times a Cholesky factor's time, and do not use the processor well. Here: one Cholesky
factor says whether any is below a bound, a few products with the matrix give the largest from below.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

PROBE_SEED: Final = 1
OVERSAMPLING: Final = 16
ROUNDS: Final = 4


def none_below_(matrix: Tensor, bound: float) -> bool:
    """Whether all eigenvalues of a symmetric matrix [n, n] are at or above `bound`; the matrix is lost.

    By a Cholesky factor of A − bound·I: exact to its rounding, n·eps·‖A‖. float64, contiguous.
    """
    matrix.diagonal().sub_(bound)
    info = torch.empty((), dtype=torch.int32, device=matrix.device)
    torch.linalg.cholesky_ex(matrix.mT, out=(matrix.mT, info))
    return int(info) == 0


def leading_eigenvalues(matrix: Tensor, count: int) -> Tensor:
    """About the `count` + 16 largest eigenvalues of a symmetric matrix [n, n], descending; float64.

    Ritz values of a block subspace iteration from a fixed start: the i-th is at or below the i-th eigenvalue (Cauchy's
    interlacing), and equal to it to rounding where the matrix's rank is below their number. All eigenvalues where the
    matrix is small.
    """
    n, size = matrix.shape[0], count + OVERSAMPLING
    if n <= 3 * size:
        every: Tensor = torch.linalg.eigvalsh(matrix)
        return every.flip(0)
    source = torch.Generator().manual_seed(PROBE_SEED)
    basis = torch.randn(n, size, dtype=torch.float64, generator=source).to(matrix.device)
    for _ in range(ROUNDS):
        basis = torch.linalg.qr(matrix @ basis).Q
    ritz: Tensor = torch.linalg.eigvalsh(basis.mT @ (matrix @ basis))
    return ritz.flip(0)
