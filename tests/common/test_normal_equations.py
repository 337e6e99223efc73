"""The two ways of the merge's kernel: equal results, and the shorter one is taken."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from collabedit.common.editors import MEMIT, normal_equations
from collabedit.common.editors.normal_equations import (
    dense_operations,
    woodbury_is_shorter,
    woodbury_operations,
)
from collabedit.common.prior import Prior

W = "h.3.weight"


@pytest.fixture
def take(monkeypatch):
    """take(woodbury) decides for the cost model."""

    def decide(woodbury: bool) -> None:
        monkeypatch.setattr(normal_equations, "woodbury_is_shorter", lambda *_, **__: woodbury)

    return decide


def both(prior: Prior, updates, take) -> tuple[torch.Tensor, torch.Tensor]:
    """Δ by Woodbury's formula, and by the dense sums."""
    take(True)
    by_root = MEMIT.solve(replace(prior), updates, what=W)
    take(False)
    return by_root, MEMIT.solve(replace(prior), updates, what=W)


class Counter(TorchDispatchMode):
    """Multiplications and additions of what LAPACK and BLAS are asked to do."""

    total = 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, shapes = func.overloadpacket.__name__, [each.shape for each in args if isinstance(each, torch.Tensor)]
        if name in ("mm", "addmm_", "addmm"):
            (m, k), (_, n) = shapes[-2:]
            self.total += 2 * m * k * n
        elif name == "linalg_cholesky_ex":
            self.total += shapes[0][0] ** 3 / 3
        elif name == "linalg_solve_triangular":
            (n, _), (_, m) = shapes
            self.total += n * n * m
        return func(*args, **(kwargs or {}))


def counted(prior: Prior, updates) -> float:
    """Operations of one merge."""
    with Counter() as counter:
        MEMIT.solve(prior, updates, what=W)
    return counter.total


@dataclass
class Shelf:
    """A place for one root, in memory."""

    content: torch.Tensor | None = None
    log: list[str] = field(default_factory=list)

    @property
    def held(self) -> bool:
        return self.content is not None

    def read(self):
        self.log.append("read")
        return self.content

    def write(self, root) -> None:
        self.log.append("write")
        self.content = root


@given(
    parties=st.integers(1, 6),
    edits=st.integers(1, 20),
    d_out=st.sampled_from([3, 40]),
    past=st.integers(0, 30),
    weight=st.sampled_from([1.0, 2e4]),
    size=st.sampled_from([1e-6, 1e-3]),
    seed=st.integers(0, 999),
)
@settings(deadline=None, max_examples=40)
def test_both_ways_give_one_result(make, parties, edits, d_out, past, weight, size, seed):
    """To 1e-9 at cond(C) 1e7 and ‖S‖ = 1e-6‖C‖, for few and for many edits, with the rounds before or without."""
    one = make.problem(seed=seed, d_in=48, d_out=d_out, parties=parties, edits=edits, size=size * weight)
    L = (
        torch.randn(48, past, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        * (size * weight) ** 0.5
    )
    prior = Prior(one.prior, weight, 1.0, L if past else None, 0.7)
    with pytest.MonkeyPatch.context() as patch:
        by_root, dense = both(
            prior, one.updates("f", torch.float64),
            lambda way: patch.setattr(normal_equations, "woodbury_is_shorter", lambda *_, **__: way),
        )  # fmt: skip
    assert make.distance(by_root, dense) < 1e-9 * max(1.0, 1e6 * size)


@pytest.mark.parametrize("encodings", ["f", "fd", "ffp"])
@pytest.mark.parametrize("way", [True, False])
def test_a_re_run_gives_the_same_bits(make, take, way, encodings):
    """Either way, at a size at which sums run in several blocks and batches."""
    one = make.problem(seed=1, d_in=300, d_out=40, parties=9, edits=70)
    take(way)
    first, second = (MEMIT.solve(one.known, one.updates(encodings, torch.float32), what=W) for _ in range(2))
    assert torch.equal(first, second)
    assert make.distance(first, one.global_update) < 1e-6


SHAPES = [(200, 800), (800, 800), (64, 1024)]


@pytest.mark.parametrize(("d_out", "d_in"), SHAPES)
@pytest.mark.parametrize("held", [True, False])
def test_the_shorter_way_is_taken_on_both_sides_of_the_crossover(make, take, monkeypatch, d_out, d_in, held):
    """By operations counted as they are asked for, near where both ways cost the same: the model's figures are those.

    The ways are told by what is counted, not by a clock.
    """
    cross = next(m for m in range(d_in) if not woodbury_is_shorter(d_out, d_in, m, m, root_held=held))
    assert 10 < cross < d_in
    prior = Prior(torch.eye(d_in, dtype=torch.float64))
    if held:
        assert prior.root is not None
    for columns, woodbury in ((round(cross * 0.8), True), (round(cross * 1.2), False)):
        K, R = torch.randn(d_in, columns, dtype=torch.float64), torch.randn(d_out, columns, dtype=torch.float64)
        updates = [normal_equations.Factored(R, K)]
        model = {
            True: woodbury_operations(d_out, d_in, columns, columns, root_held=held),
            False: dense_operations(d_out, d_in, columns, columns),
        }
        fresh = prior if held else Prior(prior.given)
        chosen = counted(fresh, updates)
        monkeypatch.undo()
        assert chosen == pytest.approx(model[woodbury], rel=0.2)  # blocks on the diagonal are computed whole
        take(not woodbury)
        assert counted(prior if held else Prior(prior.given), updates) > chosen
        monkeypatch.undo()


@given(
    d_in=st.sampled_from([768, 6400, 16384]), ratio=st.sampled_from([0.25, 1.0]), past=st.integers(0, 4000),
    held=st.booleans(),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_there_is_one_crossover(d_in, ratio, past, held):
    """Once the dense way is the shorter, more columns never turn that round."""
    choices = [
        woodbury_is_shorter(int(d_in * ratio), d_in, past + new, new, root_held=held)
        for new in range(0, d_in, d_in // 64)
    ]
    assert choices == sorted(choices, reverse=True)


def test_few_edits_never_read_c0_where_its_factor_is_kept(make):
    """The first merge computes and keeps F; the next one reads it and not C0; both give the same bits."""
    one, shelf, reads = make.problem(seed=2, d_in=128, d_out=32, parties=2, edits=3), Shelf(), []

    def read() -> torch.Tensor:
        reads.append(1)
        return one.prior.clone()

    first, second = (
        MEMIT.solve(Prior(read, 3.0, kept=shelf), one.updates("f", torch.float32), what=W) for _ in range(2)
    )
    assert torch.equal(first, second)
    assert len(reads) == 1
    assert shelf.log == ["read", "write", "read"]
    other = MEMIT.solve(Prior(read, 6.0, kept=shelf), one.updates("f", torch.float32), what=W)  # another λ, the same F
    assert len(reads) == 1
    assert make.distance(other, make.memit(torch.cat(one.keys, 1), torch.cat(one.residuals, 1), 6 * one.prior)) < 1e-6


def test_c0_that_is_read_is_read_once(make, take):
    """It becomes C + ΣS above the diagonal and stays C below: there Σ Δᵢ of dense uploads is multiplied by it."""
    take(False)
    one = make.problem(seed=2, d_in=600, d_out=16, parties=5, edits=3)
    for encodings, wanted in (("f", 1), ("d", 1), ("fp", 1)):
        reads = []

        def read(log=reads) -> torch.Tensor:
            log.append(1)
            return one.prior.clone()

        found = MEMIT.solve(Prior(read), one.updates(encodings, torch.float64), what=W)
        assert make.distance(found, one.global_update) < 1e-9
        assert len(reads) == wanted


def test_an_input_that_only_edits_excite_goes_the_dense_way(make, take):
    """C0 has no factor there, C + S has: Woodbury's formula does not apply, whatever the cost model says."""
    take(True)
    one = make.problem(seed=3, d_in=24, d_out=5, parties=1, edits=4, condition=10.0, size=1.0)
    prior = one.prior.clone()
    prior[7], prior[:, 7] = 0.0, 0.0
    K, R = one.keys[0], one.residuals[0]
    found = MEMIT.solve(Prior(prior), one.updates("f", torch.float64), what=W)
    assert make.distance(found, make.memit(K, R, prior)) < 1e-9
    assert bool(found[:, 7].any())


def test_nothing_to_edit_changes_nothing():
    """Uploads of rank 0 give Δ = 0."""
    empty = normal_equations.Factored(torch.ones(3, 0), torch.ones(8, 0))
    update = MEMIT.solve(Prior(torch.eye(8, dtype=torch.float64)), [empty, empty], what=W)
    assert torch.equal(update, torch.zeros(3, 8, dtype=torch.float64))


def test_a_c0_of_too_little_text_goes_the_dense_way(make, take):
    """Its factor ends in rounding, and so would the answer: what keeps C + ΣS definite is in the sum alone."""
    take(True)
    generator = torch.Generator().manual_seed(0)
    few = torch.randn(24, 20, dtype=torch.float64, generator=generator)
    K, R = torch.randn(24, 10, dtype=torch.float64, generator=generator), torch.ones(5, 10, dtype=torch.float64)
    prior = Prior(few @ few.mT + 1e-15 * torch.eye(24, dtype=torch.float64))
    assert prior.root is None
    found = MEMIT.solve(prior, [normal_equations.Factored(R, K)], what=W)
    assert make.distance(found, make.memit(K, R, prior.mean)) < 1e-9
