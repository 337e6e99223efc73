"""Uncentred second moments E[k kᵀ], gathered piece by piece."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from collabedit.common.linalg import as_float64


@dataclass(frozen=True)
class SecondMoment:
    """Σ k kᵀ over `count` vectors: `total`, [d, d], float64. `merge` is associative, `empty` its neutral element."""

    count: int
    total: Tensor

    @classmethod
    def empty(cls, d: int, *, device: torch.device | str = "cpu") -> SecondMoment:
        """No vectors of dimension d."""
        return cls(0, torch.zeros(d, d, dtype=torch.float64, device=device))

    @classmethod
    def of(cls, rows: Tensor) -> SecondMoment:
        """The moment of the vectors that are the rows of [n, d]; any floating dtype, multiplied in float64."""
        exact = as_float64(rows)
        return cls(rows.shape[0], exact.mT @ exact)

    def merge(self, other: SecondMoment) -> SecondMoment:
        """The moment of both sets of vectors; neither operand changes. Raises ValueError where dimensions differ."""
        if self.total.shape != other.total.shape:
            raise ValueError(f"moments of dimension {len(self.total)} and {len(other.total)} do not merge")
        return SecondMoment(self.count + other.count, self.total + other.total)

    def mean(self) -> Tensor:
        """C0 = E[k kᵀ], [d, d], float64, symmetric to the bit. Raises ValueError where there were no vectors."""
        if self.count == 0:
            raise ValueError("the mean of no vectors")
        return (self.total + self.total.mT) / (2 * self.count)
