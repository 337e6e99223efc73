"""Models to measure exactness on: the bundled one, and synthetic layers that are as ill-conditioned as real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import log10
from typing import Final

import torch
from torch import Tensor

from collabedit.client.keys import measure
from collabedit.client.loading import LoadedModel
from collabedit.client.memit import layer_update, share
from collabedit.client.targets import Targets, find_targets
from collabedit.client.weights import read_weight, write_weight
from collabedit.common.edits import Edit
from collabedit.common.hparams import ResidualShares
from collabedit.common.model_folder import find_model
from collabedit.common.prior import Prior
from collabedit.experiments.baselines import Bench, score_with
from collabedit.experiments.bundled import party_edits
from collabedit.experiments.exactness import Party, Weights

FIRST, LATER, ROUNDS, PARTIES = 8, 4, 10, 3  # edits of each party in the first round and in later ones
CONDITION: Final = 1e7
SIZE: Final = 1e-6  # ‖S‖ of one party relative to ‖C‖


@dataclass(frozen=True)
class Atlas:
    """The bundled model in float64: three parties, ten rounds, 132 edits; z is searched once, on the model as it is."""

    bench: Bench
    edits: Sequence[Edit]
    targets: Targets
    rounds: Sequence[Sequence[Party]]
    name: str = "atlas"

    @classmethod
    def made(cls, model: str = "atlas", *, first: int = FIRST, later: int = LATER, rounds: int = ROUNDS) -> Atlas:
        """The model with its bundled edits. Raises UsageError for one that brings none."""
        folder = find_model(model)
        bench = Bench.of(folder, dtype=torch.float64)
        dealt = _dealt(first, later, rounds, PARTIES)
        edits = [edit for party in party_edits(folder, 10) for edit in party][: 1 + max(dealt[-1][-1])]
        targets = find_targets(bench.loaded, edits, bench.hparams, bench.templates)
        return cls(bench, edits, targets, dealt)

    @property
    def weights(self) -> tuple[str, ...]:
        """Full names, in the order of the layers."""
        return self.bench.weights

    @property
    def priors(self) -> Mapping[str, Prior]:
        """As `Ground.priors`, of the model's own covariance."""
        return self.bench.priors

    @property
    def loaded(self) -> LoadedModel:
        """The model."""
        return self.bench.loaded

    def judge(self, update: Weights) -> Mapping[str, float | None]:
        """ES, PS, NS and Score of all edits on the model with an update."""
        return score_with(self.bench, update, self.edits).row()

    def measure(self, edits: Party, index: int, shares: ResidualShares) -> tuple[Tensor, Tensor]:
        """As `Ground.measure`, by the engine."""
        own, hparams = [self.edits[edit] for edit in edits], self.bench.hparams
        measured = measure(self.loaded, own, hparams, self.bench.templates, hparams.layers[index])
        return layer_update(measured, self.targets.z[:, list(edits)], index, len(self.weights), shares)

    def read(self, name: str) -> Tensor:
        """As `Ground.read`."""
        return read_weight(self.loaded, name)

    def write(self, name: str, weight: Tensor) -> None:
        """As `Ground.write`."""
        write_weight(self.loaded, name, weight)


def _dealt(first: int, later: int, rounds: int, parties: int) -> list[list[Party]]:
    """Numbers of edits by round and party, each edit once."""
    dealt: list[list[Party]] = []
    start = 0
    for round_ in range(rounds):
        each = first if round_ == 0 else later
        dealt.append([range(start + each * party, start + each * (party + 1)) for party in range(parties)])
        start += each * parties
    return dealt


@dataclass
class Synthetic:
    """h ← h + W_l tanh(U_l h) over four layers, of which each W_l is edited; float64.

    up: U_l [hidden, d]; states, targets: [d, edits], h before the first layer and z after the last. cond(C) = 1e7, and
    ‖S‖ of one party's first round is 1e-6 ‖C‖ in each layer.
    """

    up: list[Tensor]
    states: Tensor
    targets: Tensor
    priors: dict[str, Prior]
    rounds: Sequence[Sequence[Party]]
    name: str = "synthetic"
    _present: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def made(
        cls,
        *,
        layers: int = 4,
        d: int = 32,
        hidden: int = 128,
        parties: int = 10,
        edits: int = 6,
        rounds: int = ROUNDS,
        seed: int = 0,
    ) -> Synthetic:
        """Random weights, edits and covariances."""
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=generator)

        names = [f"layer.{layer}.weight" for layer in range(layers)]
        dealt = _dealt(edits, edits, rounds, parties)
        count = parties * edits * rounds
        states, present = draw(d, count), {name: draw(d, hidden) / hidden**0.5 for name in names}
        up = [draw(hidden, d) / d**0.5 for _ in names]
        made = cls(up, states, states + 3 * draw(d, count), {}, dealt, _present=present)
        for index, name in enumerate(names):
            keys, _ = made.measure(dealt[0][0], index, "equal")
            size = float(torch.linalg.matrix_norm(keys, 2)) ** 2
            made.priors[name] = Prior(_spd(draw(hidden, hidden)), size / SIZE)
        return made

    @property
    def weights(self) -> tuple[str, ...]:
        """Names, in the order of the layers."""
        return tuple(self._present)

    def measure(self, edits: Party, index: int, shares: ResidualShares) -> tuple[Tensor, Tensor]:
        """As `Ground.measure`."""
        state, keys = self.states[:, list(edits)], torch.empty(0)
        for place, (up, weight) in enumerate(zip(self.up, self._present.values(), strict=True)):
            inputs = torch.tanh(up @ state)
            keys = inputs if place == index else keys
            state = state + weight @ inputs
        return keys, (self.targets[:, list(edits)] - state) * share(index, len(self.up), shares)

    def read(self, name: str) -> Tensor:
        """As `Ground.read`."""
        return self._present[name].clone()

    def write(self, name: str, weight: Tensor) -> None:
        """As `Ground.write`."""
        self._present[name] = weight.clone()


def _spd(noise: Tensor) -> Tensor:
    """A symmetric positive definite matrix with eigenvalues from 1 down to 1/CONDITION, in a random basis."""
    basis = torch.linalg.qr(noise).Q
    values = torch.logspace(0, -log10(CONDITION), len(noise), dtype=torch.float64)
    matrix = (basis * values) @ basis.mT
    symmetric: Tensor = (matrix + matrix.mT) / 2
    return symmetric
