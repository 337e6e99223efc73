"""The numbers watched: what a layer's merge in a round was like, for people to look at. Pure.

Computed from what the merge has in hand, at a cost that is small against its own: products with matrices that are
there, and norms of thin factors. Spectral norms and the condition are estimates from below (`collabedit.common.condition`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Final

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from collabedit.common.accumulated import part_of, product, rank_bound
from collabedit.common.condition import largest_eigenvalue
from collabedit.common.contribution import Factored, LayerUpdate
from collabedit.common.linalg import as_float64

RANK_TOLERANCE: Final = 1e-6  # of S's largest eigenvalue: as for the least rank of a contribution
COUNTED: Final = 4  # the rank is counted where the uploads have at most d_in / 4 columns together
ILL_CONDITIONED: Final = 1e12  # float64 has 1e16: fewer than four digits of Δ are certain
LARGE_CHANGE: Final = 0.5  # of ‖W‖: an edit changes a layer by a few hundredths
MUCH_LOST: Final = 0.05  # of ‖Δ‖: what rounding the weights to the model's dtype takes away
OUTLIER: Final = 100.0  # times the median of the contributions' ‖S‖


class ContributionNumbers(BaseModel):
    """One contribution to a layer. kkt_norm: ‖Sᵢ‖₂; residual_norm: ‖R̃ᵢ‖_F, None for a dense one; rank: its columns."""

    model_config = ConfigDict(frozen=True)

    client: str
    kkt_norm: float
    residual_norm: float | None = None
    rank: int


class LayerNumbers(BaseModel):
    """One layer of one round.

    condition: of the matrix that the editor factored, C + ΣS with MEMIT; the largest where several were; None: none.
    rank: of ΣᵢSᵢ of the round, by RANK_TOLERANCE; where it is not counted (`rank_counted`), the greatest it can be.
    kkt_norm: ‖ΣᵢSᵢ‖₂ of the round; past_norm, past_rank: ‖ΣS‖₂ and greatest rank of the accumulated sum, this round's in
    it; None where nothing accumulates. update_norm: ‖Δ‖_F; weight_norm: ‖W‖_F before; change: ‖W′ − W‖_F, W′ as it was
    stored, in the model's dtype; lost: ‖W′ − W − Δ‖_F; drift: ‖W′ − W₀‖_F from the base model.
    """

    model_config = ConfigDict(frozen=True)

    weight: str
    condition: float | None = None
    rank: int
    rank_counted: bool
    kkt_norm: float
    past_norm: float | None = None
    past_rank: int | None = None
    update_norm: float
    weight_norm: float
    change: float
    lost: float
    drift: float
    contributions: tuple[ContributionNumbers, ...] = ()

    @property
    def relative_change(self) -> float:
        """‖Δ‖ / ‖W‖; 0 for a weight of zeros."""
        return self.update_norm / self.weight_norm if self.weight_norm else 0.0

    @property
    def warnings(self) -> tuple[str, ...]:
        """What somebody should look at, a line each; none where all is well."""
        return tuple(f"{self.weight}: {line}" for line in _warnings(self))


def sum_numbers(updates: Sequence[LayerUpdate]) -> tuple[int, bool, float]:
    """(rank, whether it was counted, ‖ΣᵢSᵢ‖₂) of one layer's uploads."""
    parts = [part_of(each) for each in updates]
    d_in = updates[0].shape[1]
    bound = rank_bound(parts, d_in=d_in)
    norm = largest_eigenvalue(lambda x: product(parts, x), d_in)
    if any(part.ndim == 1 for part in parts) or sum(part.shape[1] for part in parts) > d_in // COUNTED:
        return bound, False, norm
    stacked = torch.cat([as_float64(part) for part in parts], 1)
    values: Tensor = torch.linalg.eigvalsh(stacked.mT @ stacked)
    return int((values > RANK_TOLERANCE * values[-1]).sum()), True, norm


def contribution_numbers(clients: Sequence[str], updates: Sequence[LayerUpdate]) -> tuple[ContributionNumbers, ...]:
    """Of each upload of a layer, in the order given."""
    return tuple(_of_one(client, update) for client, update in zip(clients, updates, strict=True))


def _of_one(client: str, update: LayerUpdate) -> ContributionNumbers:
    part, d_in = part_of(update), update.shape[1]
    norm = largest_eigenvalue(lambda x: product([part], x), d_in)
    residual = float(as_float64(update.residual_factor).norm()) if isinstance(update, Factored) else None
    return ContributionNumbers(client=client, kkt_norm=norm, residual_norm=residual, rank=rank_bound([part], d_in=d_in))


def change_numbers(before: Tensor, after: Tensor, update: Tensor, base: Tensor) -> dict[str, float]:
    """The numbers of a weight's change; W before and after as stored, W₀ of the base model, Δ: [d_out, d_in] each."""
    stored = as_float64(after) - as_float64(before)
    return {
        "update_norm": float(update.norm()),
        "weight_norm": float(as_float64(before).norm()),
        "change": float(stored.norm()),
        "lost": float((stored - update).norm()),
        "drift": float((as_float64(after) - as_float64(base)).norm()),
    }


def _warnings(numbers: LayerNumbers) -> Iterable[str]:
    if numbers.condition is not None and numbers.condition > ILL_CONDITIONED:
        yield f"condition {numbers.condition:.1e}, over {ILL_CONDITIONED:.0e}: few digits of the update are certain"
    if numbers.relative_change > LARGE_CHANGE:
        yield f"the update is {numbers.relative_change:.2g} of the weight, over {LARGE_CHANGE:g}"
    if numbers.lost > MUCH_LOST * numbers.update_norm:
        share = numbers.lost / numbers.update_norm if numbers.update_norm else float("inf")
        yield f"rounding to the model's dtype lost {share:.2g} of the update, over {MUCH_LOST:g}"
    norms = [each.kkt_norm for each in numbers.contributions]
    if len(norms) > 2:
        for each in numbers.contributions:
            if each.kkt_norm > OUTLIER * median(norms):
                yield f"{each.client}: its KKᵀ is over {OUTLIER:g} times as large as the median"
