"""What a merge method is: contributions of several clients to updates of the shared weights, a layer at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from collabedit.common.contribution import ContributionLike

Prior = Callable[[str], Tensor]  # the prior C of a weight, [d_in, d_in], float64; never written to


class MergeMethod(Protocol):
    """One rule of merging. Implementations are frozen dataclasses that hold the rule's own constants."""

    @property
    def name(self) -> str:
        """The method's name in settings, commands and tables."""

    def merge(
        self, weights: Sequence[str], prior: Prior, contributions: Sequence[ContributionLike]
    ) -> Iterator[tuple[str, Tensor]]:
        """Yields (weight, Δ) for each of `weights`, in their order: Δ is [d_out, d_in], float64, to be added to W.

        One layer's matrices are in memory at a time. Contributions are summed in the order given, so that a re-run
        gives the same bits. Raises NotPositiveDefiniteError that names the weight, ContributionError where a
        contribution lacks one, ValueError where there are no contributions.
        """


def merged_shape(weight: str, contributions: Sequence[ContributionLike]) -> tuple[int, int]:
    """(d_out, d_in) of a weight's update, the same in every contribution. Raises ValueError where it is not."""
    shapes = {each.layer(weight).shape for each in contributions}
    if len(shapes) != 1:
        raise ValueError(f"{weight}: " + (f"shapes {sorted(shapes)} do not add up" if shapes else "nothing to merge"))
    return shapes.pop()


def sum_of_updates(weight: str, prior: Prior, contributions: Sequence[ContributionLike]) -> Tensor:
    """Σᵢ Δᵢ of one weight, [d_out, d_in], float64, in the order given."""
    C = prior(weight)
    total = torch.zeros(merged_shape(weight, contributions), dtype=torch.float64, device=C.device)
    for each in contributions:
        total += each.layer(weight).update(C, what=f"C + KKᵀ of {weight}")
    return total
