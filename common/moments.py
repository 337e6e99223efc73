"""Uncentred second moments E[k kᵀ], gathered piece by piece."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from collabedit.common.linalg import as_float64

COLUMNS: Final = 512  # of a product at a time: what is above the diagonal is left out in whole blocks


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


class MomentSum:
    """Σ k kᵀ under way: one matrix [d, d], float64, added to in place; what is above the diagonal's blocks is unused.

    total: where to begin, [d, d], the caller's own from then on; count: vectors in it.
    """

    def __init__(self, total: Tensor, count: int = 0) -> None:
        self.total = total
        self.count = count

    @classmethod
    def empty(cls, d: int, *, device: torch.device | str = "cpu") -> MomentSum:
        """No vectors of dimension d."""
        return cls(torch.zeros(d, d, dtype=torch.float64, device=device))

    def add(self, rows: Tensor) -> None:
        """Adds the vectors that are the rows of [n, d]; any floating dtype, multiplied and summed in float64.

        Half of the products are enough for a symmetric sum. The sum goes to the rows' device if it is elsewhere.
        """
        exact = as_float64(rows)
        self.total = self.total.to(exact.device)
        for start in range(0, len(self.total), COLUMNS):
            end = min(start + COLUMNS, len(self.total))
            self.total[start:end, :end].addmm_(exact[:, start:end].mT, exact[:, :end])
        self.count += rows.shape[0]

    def moment(self) -> SecondMoment:
        """What has been summed so far, symmetric to the bit."""
        lower = self.total.tril()
        return SecondMoment(self.count, lower + lower.tril(-1).mT)

    def into_mean(self) -> Tensor:
        """C0 = E[k kᵀ], [d, d], float64, symmetric to the bit, in the sum's own memory: the sum is lost.

        The same bits as `moment().mean()`. Raises ValueError where there were no vectors.
        """
        if self.count == 0:
            raise ValueError("the mean of no vectors")
        for start in range(0, len(self.total), COLUMNS):
            end = min(start + COLUMNS, len(self.total))
            corner = self.total[start:end, start:end].tril()
            self.total[start:end, start:end] = corner + corner.tril(-1).mT
            self.total[:start, start:end] = self.total[start:end, :start].mT
        mean, self.count = self.total.div_(self.count), 0
        return mean
