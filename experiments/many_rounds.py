"""A federation over many rounds, in memory: each round stands on the weights and on the ΣS of those before (eq. 7).

The steps are those of client and server: `baselines.layer_by_layer` for a round, `common.accumulated` for what the
server keeps of it. Naive merges keep nothing, since their parties upload no S: their C is C0 in every round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from collabedit.client.memit import edit_alone
from collabedit.client.targets import TargetCache, Targets, find_targets
from collabedit.client.weights import add_update
from collabedit.common.accumulated import folded, folds, part_of, side_by_side, sum_of
from collabedit.common.contribution import Contribution
from collabedit.common.edits import Edit
from collabedit.common.prior import Prior
from collabedit.experiments.baselines import (
    Bench,
    Party,
    everything_at_once,
    layer_by_layer,
    local_updates,
    merged_by,
    union,
)


@dataclass(frozen=True)
class Dynamics:
    """C_t = β0·λ·C0 + β1·ΣS; β1 = 0: immutable C. Where β1 is not 0, β0 counts from the first round on, as β1 does."""

    beta0: float = 1.0
    beta1: float = 1.0


@dataclass
class ManyRounds:
    """One model that round after round edits; `bench.loaded` holds the weights of the latest. priors of `bench`: C0."""

    bench: Bench
    method: str = "collabedit"
    dynamics: Dynamics = Dynamics()
    pieces: dict[str, list[Tensor]] = field(default_factory=dict)

    @property
    def now(self) -> Bench:
        """The bench with this round's C."""
        return replace(self.bench, priors={weight: self._prior(weight) for weight in self.bench.weights})

    def targets(self, edits: Sequence[Edit], store: TargetCache | None = None) -> Targets:
        """z on the weights of the round. All parties' edits at once are found faster than party by party.

        store: where z are looked for first, and kept.
        """
        return find_targets(self.bench.loaded, edits, self.bench.hparams, self.bench.templates, store=store)

    def run(self, parties: Sequence[Party]) -> dict[str, Tensor]:
        """One round: the merged update, by weight, which is in the model afterwards, and its S in the next C."""
        update = self._update(parties)
        for weight, delta in update.items():
            add_update(self.bench.loaded, weight, delta)
        return update

    def _update(self, parties: Sequence[Party]) -> dict[str, Tensor]:
        now = self.now
        if self.method == "collabedit":
            return layer_by_layer(now, parties, self._remember)
        if self.method != "global-edit":
            return merged_by(self.method, self.bench, local_updates(self.bench, parties))
        whole = union(parties)
        update = everything_at_once(now, parties)
        factors = edit_alone(
            now.loaded, whole.edits, whole.targets, now.hparams, now.templates, now.priors, editor=now.editor
        )
        for weight, factor in factors.items():
            self._remember(weight, [Contribution({weight: factor})])
        return update

    def _prior(self, weight: str) -> Prior:
        factor, triangle = side_by_side(self.pieces.get(weight, ()))
        prior, dynamics = self.bench.priors[weight], self.dynamics
        return replace(
            prior, beta0=dynamics.beta0, beta1=dynamics.beta1, accumulated=factor, accumulated_triangle=triangle
        )

    def _remember(self, weight: str, contributions: Sequence[Contribution]) -> None:
        """As the server does: one piece a round, all folded into one where it is time."""
        if self.dynamics.beta1 == 0:
            return
        d_in = self.bench.priors[weight].mean.shape[0]
        new = sum_of((part_of(each.layers[weight]) for each in contributions), d_in=d_in)
        pieces = [*self.pieces.get(weight, ()), new]
        self.pieces[weight] = [folded(pieces, d_in=d_in)] if folds(pieces, d_in=d_in) else pieces


def left_over(residuals: Tensor, keys: Tensor, prior: Tensor) -> Tensor:
    """R_new of eq. 6: R − R Kᵀ (C + K Kᵀ)⁻¹ K, [d_out, M], float64. residuals R: [d_out, M]; keys K: [d_in, M]."""
    solved: Tensor = torch.linalg.solve(prior + keys @ keys.mT, keys)
    left: Tensor = residuals - residuals @ (keys.mT @ solved)
    return left
