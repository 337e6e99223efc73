"""Adam for many vectors at once, each of which may have begun at another time and stops at its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

MEAN_DECAY: Final = 0.9  # β1, β2 and ε as in torch.optim.Adam, MEMIT's optimiser
SQUARE_DECAY: Final = 0.999
EPSILON: Final = 1e-8


@dataclass(frozen=True)
class Descent:
    """δ of n edits, each no longer than its `most`: [n, d]; steps: how many each has taken, [n], int64.

    mean, square: Adam's moments, [n, d]. torch's own Adam counts the steps of a tensor as a whole, so that a vector
    which joins later would have another bias correction.
    """

    delta: Tensor
    mean: Tensor
    square: Tensor
    most: Tensor
    steps: Tensor

    @classmethod
    def at_rest(cls, most: Tensor, d: int) -> Descent:
        """δ = 0 for each bound in `most`, [n]."""
        zeros = torch.zeros(len(most), d, dtype=most.dtype, device=most.device)
        return cls(zeros, zeros, zeros, most, torch.zeros(len(most), dtype=torch.int64, device=most.device))

    def only(self, rows: Tensor) -> Descent:
        """Some of the vectors, by their numbers."""
        return Descent(self.delta[rows], self.mean[rows], self.square[rows], self.most[rows], self.steps[rows])

    def joined(self, other: Descent) -> Descent:
        """Both sets of vectors, these first."""
        pairs = (
            (self.delta, other.delta), (self.mean, other.mean), (self.square, other.square), (self.most, other.most),
            (self.steps, other.steps),
        )  # fmt: skip
        return Descent(*(torch.cat(pair) for pair in pairs))

    def step(self, gradient: Tensor, rate: float) -> Descent:
        """One step of Adam against `gradient`, [n, d], and then ‖δ‖ ≤ most."""
        steps = self.steps + 1
        mean = MEAN_DECAY * self.mean + (1 - MEAN_DECAY) * gradient
        square = SQUARE_DECAY * self.square + (1 - SQUARE_DECAY) * gradient.square()
        count = steps.to(gradient.dtype).unsqueeze(1)
        root = (square / (1 - SQUARE_DECAY**count)).sqrt()
        moved = self.delta - rate / (1 - MEAN_DECAY**count) * mean / (root + EPSILON)
        return replace(self, delta=_clamped(moved, self.most), mean=mean, square=square, steps=steps)


def _clamped(delta: Tensor, most: Tensor) -> Tensor:
    """δ [n, d], each no longer than its `most` [n]."""
    sizes = delta.norm(dim=-1)
    return torch.where((sizes > most).unsqueeze(-1), delta * (most / sizes.clamp(min=1e-30)).unsqueeze(-1), delta)
