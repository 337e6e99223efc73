"""The exact merge (eq. 4, 17): what one party that holds every edit would have computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from collabedit.common.contribution import ContributionLike, LayerUpdate
from collabedit.common.linalg import Cholesky, as_float64
from collabedit.common.merge.base import Prior, merged_shape


def merge_layer(prior: Tensor, updates: Iterable[LayerUpdate], *, what: str = "C + ΣKKᵀ") -> Tensor:
    """Δ_G = (Σᵢ Δᵢ(C + Sᵢ)) (C + Σᵢ Sᵢ)⁻¹, [d_out, d_in], float64 (eq. 17).

    prior C: [d_in, d_in], symmetric positive definite, left as it is. Updates of either encoding, one in memory at a
    time, summed in the order given. Raises NotPositiveDefiniteError that names `what`, ValueError where there is none.
    """
    prior = as_float64(prior)
    gram, moment = prior.clone(), None
    for update in updates:
        if moment is None:
            moment = torch.zeros(update.shape, dtype=torch.float64, device=prior.device)
        update.add_moment_to(moment, prior)  # G += Δᵢ(C + Sᵢ)
        update.add_kkt_to(gram)  # A += Sᵢ
    if moment is None:
        raise ValueError(f"{what}: nothing to merge")
    return Cholesky.of(gram, what=what, overwrite=True).solve_right(moment)  # Δ_G = G A⁻¹


@dataclass(frozen=True)
class CollabEdit:
    """Non-destructive: equal to the global edit, to rounding."""

    name: str = "collabedit"

    def merge(
        self, weights: Sequence[str], prior: Prior, contributions: Sequence[ContributionLike]
    ) -> Iterator[tuple[str, Tensor]]:
        """As `MergeMethod.merge`."""
        for weight in weights:
            merged_shape(weight, contributions)
            updates = (each.layer(weight) for each in contributions)
            yield weight, merge_layer(prior(weight), updates, what=f"C + ΣKKᵀ of {weight}")
