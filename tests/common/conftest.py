"""Matrices of known condition number, and parties with keys and residuals, for the tests of the mathematics."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from collabedit.common.contribution import Contribution, Dense, LayerUpdate, Metadata
from collabedit.common.editors import MEMIT
from collabedit.common.factors import factor_update
from collabedit.common.prior import Prior
from collabedit.common.triangle import pack


def memit(keys: Tensor, residuals: Tensor, C: Tensor) -> Tensor:
    """Δ = R Kᵀ (C + K Kᵀ)⁻¹, by the formula (eq. 2)."""
    return torch.linalg.solve(C + keys @ keys.mT, keys @ residuals.mT).mT


@dataclass(frozen=True)
class Problem:
    """One layer: a prior C [d_in, d_in] and the keys and residuals of each party."""

    prior: Tensor
    keys: list[Tensor]
    residuals: list[Tensor]

    @property
    def global_update(self) -> Tensor:
        """What one party holding every edit computes."""
        return memit(torch.cat(self.keys, 1), torch.cat(self.residuals, 1), self.prior)

    @property
    def known(self) -> Prior:
        """C as a prior."""
        return Prior(self.prior)

    def solve(self, *updates: LayerUpdate) -> Tensor:
        """MEMIT's Δ of the union of some uploads."""
        return MEMIT.solve(self.known, updates, what="h.0.weight")

    def updates(self, encodings: str, dtype: torch.dtype) -> list[LayerUpdate]:
        """Each party's upload; encodings: a letter a party, f(actored), d(ense) or p(acked), repeated as needed."""
        made: list[LayerUpdate] = []
        for place, (K, R) in enumerate(zip(self.keys, self.residuals, strict=True)):
            encoding, S = encodings[place % len(encodings)], K @ K.mT
            upload = factor_update(K, R) if encoding == "f" else Dense(memit(K, R, self.prior), S)
            made.append((Dense(upload.delta, pack(S)) if encoding == "p" else upload).to(dtype))
        return made


def orthogonal(n: int, generator: torch.Generator) -> Tensor:
    """A random orthogonal matrix [n, n]."""
    return torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator)).Q


def spd(n: int, condition: float, generator: torch.Generator) -> Tensor:
    """A symmetric positive definite matrix with eigenvalues from 1 down to 1/condition."""
    Q = orthogonal(n, generator)
    values = torch.logspace(0, -float(torch.tensor(condition, dtype=torch.float64).log10()), n, dtype=torch.float64)
    matrix = (Q * values) @ Q.mT
    return (matrix + matrix.mT) / 2


def problem(
    *, seed: int, d_in: int = 128, d_out: int = 32, parties: int = 10, edits: int = 12, condition: float = 1e7,
    size: float = 1e-6,
) -> Problem:  # fmt: skip
    """Parties whose ‖KKᵀ‖ is `size` × ‖C‖ for a C of the condition number given."""
    generator = torch.Generator().manual_seed(seed)
    keys, residuals = [], []
    prior = spd(d_in, condition, generator)
    for _ in range(parties):
        K = torch.randn(d_in, edits, dtype=torch.float64, generator=generator)
        keys.append(K * (size**0.5 / torch.linalg.matrix_norm(K, 2)))
        residuals.append(torch.randn(d_out, edits, dtype=torch.float64, generator=generator))
    return Problem(prior, keys, residuals)


def distance(found: Tensor, wanted: Tensor) -> float:
    """‖found − wanted‖ / ‖wanted‖, Frobenius."""
    return float((found - wanted).norm() / wanted.norm())


@pytest.fixture(scope="session")
def make():
    """The makers above: make.problem(seed=…), make.spd(n, condition, generator), make.orthogonal, make.memit, …"""

    class Makers:
        problem = staticmethod(problem)
        spd = staticmethod(spd)
        orthogonal = staticmethod(orthogonal)
        distance = staticmethod(distance)
        memit = staticmethod(memit)

    return Makers


NAMES = ("h.9.mlp.c_proj.weight", "h.10.mlp.c_proj.weight")


@pytest.fixture(scope="session")
def contribution():
    """A contribution to two layers, ten edits, d_in 24, d_out 12; contribution(encoding, dtype) -> Contribution."""

    def build(encoding: str = "factored", dtype: torch.dtype = torch.float32) -> Contribution:
        layers = {}
        for seed, name in enumerate(NAMES):
            one = problem(seed=seed, d_in=24, d_out=12, parties=1, edits=10, condition=1e3, size=0.1)
            layers[name] = one.updates(encoding[0], dtype)[0]
        metadata = Metadata(
            model_fingerprint="sha256:m", covariance_fingerprint="sha256:c", algorithm="MEMIT", edits=10
        )
        return Contribution(layers, metadata)

    return build


@pytest.fixture
def saved(tmp_path: Path, contribution):
    """saved(encoding, dtype, **metadata) -> path of a contribution file."""
    from collabedit.common.contribution_file import write_contribution

    def save(encoding: str = "factored", dtype: torch.dtype = torch.float32, **metadata: object) -> Path:
        made = contribution(encoding, dtype)
        made = replace(made, metadata=made.metadata.model_copy(update=metadata))
        path = tmp_path / f"{encoding}.safetensors"
        write_contribution(path, made.layers, made.metadata)
        return path

    return save
