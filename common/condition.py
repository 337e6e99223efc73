"""How far apart the eigenvalues of a positive definite matrix are, from a few products and solves. Pure.

Lanczos' method from a fixed start, with full reorthogonalisation. The Ritz value is at or below the largest eigenvalue;
for a random start, whatever the spectrum, it is expected to lie below by at most 0.103 (ln(n (k−1)⁴) / (k−1))² of it
after k steps (Kuczyński and Woźniakowski, SIAM J. Matrix Anal. Appl. 1992): a third for n = 16384 and k = 12.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from collabedit.common.linalg import Cholesky

STEPS: Final = 12
START_SEED: Final = 1
CPU: Final = torch.device("cpu")
Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class System:
    """A symmetric positive definite A [n, n] that has been factored: x ↦ A x and x ↦ A⁻¹ x for x: [n], float64."""

    n: int
    apply: Product
    solve: Product
    device: torch.device = CPU

    @classmethod
    def of(cls, root: Cholesky) -> System:
        """A = F Fᵀ."""
        F = root.factor
        return cls(len(F), lambda x: F @ (F.mT @ x), lambda x: root.solve_left(x[:, None])[:, 0], F.device)


def condition(system: System) -> float:
    """λmax / λmin of A: a lower bound, in general within a factor of two. Some 50 passes over the factor."""
    largest, inverse = (
        largest_eigenvalue(product, system.n, device=system.device) for product in (system.apply, system.solve)
    )
    return largest * inverse


def largest_eigenvalue(apply: Product, n: int, *, steps: int = STEPS, device: torch.device = CPU) -> float:
    """‖A‖₂ of a symmetric semi-definite A [n, n] from its products, to about a tenth, never above."""
    source = torch.Generator().manual_seed(START_SEED)
    vector = torch.randn(n, dtype=torch.float64, generator=source).to(device)
    basis = torch.zeros(min(steps, n), n, dtype=torch.float64, device=device)
    ritz = torch.zeros(len(basis), len(basis), dtype=torch.float64, device=device)
    for step in range(len(basis)):
        length = float(vector.norm())
        if length == 0.0:
            break
        basis[step] = vector / length
        image = apply(basis[step])
        known = basis[: step + 1] @ image
        ritz[step, : step + 1] = ritz[: step + 1, step] = known
        vector = image - basis[: step + 1].mT @ known
        vector -= basis[: step + 1].mT @ (basis[: step + 1] @ vector)
        if float(vector.norm()) <= 1e-14 * float(image.norm()):  # the space is invariant: nothing new in it
            break
    return max(0.0, float(torch.linalg.eigvalsh(ritz)[-1]))
