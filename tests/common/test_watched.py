"""The numbers watched, against numpy on small matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from collabedit.common import triangle
from collabedit.common.condition import System, condition, largest_eigenvalue
from collabedit.common.editors import MEMIT, AlphaEdit, Emmet
from collabedit.common.linalg import Cholesky
from collabedit.common.prior import Prior
from collabedit.common.watched import ContributionNumbers, LayerNumbers
from collabedit.common.watching import change_numbers, contribution_numbers, sum_numbers

PLAIN = LayerNumbers(
    weight="w", condition=1e6, rank=8, rank_counted=True, kkt_norm=1.0, update_norm=1.0, weight_norm=50.0, change=1.0,
    lost=1e-7, drift=2.0,
)  # fmt: skip


@given(seed=st.integers(0, 9999), n=st.sampled_from([1, 5, 60, 200]), exponent=st.integers(0, 13))
@settings(deadline=None, max_examples=40)
def test_the_condition_is_estimated_from_below(make, seed, n, exponent):
    """Within a factor of two of numpy's, and above it by no more than the rounding of an ill-conditioned factor."""
    matrix = make.spd(n, 10.0**exponent, torch.Generator().manual_seed(seed))
    known = np.linalg.cond(matrix.numpy(), 2)
    found = condition(System.of(Cholesky.of(matrix)))
    assert 0.5 * known <= found <= known * (1 + max(1e-9, known * n * 1e-15))


@given(seed=st.integers(0, 9999), n=st.sampled_from([3, 100]), rank=st.integers(1, 40))
@settings(deadline=None, max_examples=20)
def test_the_largest_eigenvalue_is_numpys(seed, n, rank):
    """To a tenth, never above; to rounding where the matrix has few eigenvalues. Nothing is 0."""
    L = torch.randn(n, rank, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    known = np.linalg.norm((L @ L.mT).numpy(), 2)
    found = largest_eigenvalue(lambda x: L @ (L.mT @ x), n)
    assert 0.9 * known <= found <= known * (1 + 1e-12)
    assert largest_eigenvalue(torch.zeros_like, n) == 0.0


@pytest.mark.parametrize("way", ["woodbury", "dense", "with a triangle"])
def test_the_system_that_is_told_is_the_one_that_is_solved(make, way):
    """Whichever way the merge takes, what the watcher sees is A = C + ΣS: products, solves and condition."""
    one = make.problem(seed=4, d_in=96, d_out=12, parties=2, edits=4 if way == "woodbury" else 30, condition=1e5)
    L = torch.randn(96, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 1e-3
    K = torch.cat(one.keys, 1)
    A = 1.5 * one.prior + L @ L.mT + K @ K.mT
    x = torch.randn(96, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    seen: list[float] = []

    def watch(system: System) -> None:
        assert make.distance(system.apply(x), A @ x) < 1e-11
        assert make.distance(A @ system.solve(x), x) < 1e-9
        seen.append(condition(system))

    prior = Prior(one.prior, 1.5, accumulated=L, watch=watch)
    if way == "with a triangle":
        prior = Prior(one.prior, 1.5, accumulated_triangle=triangle.pack(L @ L.mT), watch=watch)
    update = MEMIT.solve(prior, one.updates("f", torch.float64), what="w")
    assert make.distance(update, make.memit(K, torch.cat(one.residuals, 1), 1.5 * one.prior + L @ L.mT)) < 1e-9
    (found,) = seen
    assert 0.5 <= found / np.linalg.cond(A.numpy(), 2) <= 1 + 1e-6


def test_other_editors_tell_what_they_factor(make):
    """EMMET factors C, AlphaEdit the system in the null space; each is told once a solve."""
    one = make.problem(seed=4, d_in=48, d_out=6, parties=1, edits=4, condition=1e5)
    for editor, size in ((Emmet(), 48), (AlphaEdit(threshold=1e-2), None)):
        seen: list[System] = []
        editor.solve(Prior(one.prior, watch=seen.append), one.updates("f", torch.float64), what="w")
        assert len(seen) == 1
        assert seen[0].n == size or size is None


@pytest.mark.parametrize("encodings", ["f", "d", "fd"])
def test_numbers_of_uploads_are_numpys(make, encodings):
    """‖ΣS‖₂, ‖Sᵢ‖₂, ‖R̃‖ and the rank, in either encoding; the rank of a dense upload is bounded, not counted."""
    one = make.problem(seed=2, d_in=80, d_out=10, parties=3, edits=5, condition=1e2, size=1.0)
    updates = one.updates(encodings, torch.float64)
    rank, counted, norm = sum_numbers(updates)
    S = sum(K @ K.mT for K in one.keys)
    assert norm == pytest.approx(np.linalg.norm(S.numpy(), 2), rel=0.1)
    assert (rank, counted) == ((15, True) if encodings == "f" else (80, False))
    for each, K, R in zip(contribution_numbers("abc", updates), one.keys, one.residuals, strict=True):
        assert each.kkt_norm == pytest.approx(np.linalg.norm(K.numpy(), 2) ** 2, rel=0.1)
        if each.residual_norm is not None:
            assert each.residual_norm == pytest.approx(np.linalg.norm(R.numpy()))


def test_keys_of_two_parties_that_are_one_count_once(make):
    """The rank of the sum, not the sum of the ranks."""
    one = make.problem(seed=2, d_in=80, d_out=10, parties=1, edits=5, condition=1e2, size=1.0)
    assert sum_numbers(one.updates("f", torch.float64) * 2)[:2] == (5, True)


def test_a_change_is_measured_as_it_was_stored():
    """In bfloat16 a small update is lost in rounding, and that is told; norms are numpy's."""
    generator = torch.Generator().manual_seed(0)
    base, update = torch.randn(6, 9, generator=generator), torch.randn(6, 9, generator=generator).double() * 1e-6
    found = change_numbers(base, base + update.float(), update, base)
    assert found["update_norm"] == pytest.approx(np.linalg.norm(update.numpy()))
    assert found["weight_norm"] == pytest.approx(np.linalg.norm(base.numpy()), rel=1e-6)
    assert found["change"] == found["drift"] == pytest.approx(found["update_norm"], rel=0.1)
    half = base.bfloat16()
    lost = change_numbers(half, (half.double() + update).bfloat16(), update, half)
    assert (lost["change"], lost["lost"]) == (0.0, pytest.approx(lost["update_norm"]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"condition": 2e12}, "w: condition 2.0e+12, over 1e+12"),
        ({"condition": None}, None),
        ({"lost": 0.2}, "w: rounding to the model's dtype lost 0.2 of the update, over 0.05"),
        (
            {"contributions": tuple(ContributionNumbers(client=c, kkt_norm=n, rank=1) for c, n in
                                    (("a", 1.0), ("b", 2.0), ("c", 201.0)))},
            "w: c: its KKᵀ is over 100 times as large as the median",
        ),
    ],
)  # fmt: skip
def test_warnings_begin_at_their_thresholds(changes, said):
    """One line that says the figure and the threshold; nothing where all is well."""
    warnings = PLAIN.model_copy(update=changes).warnings
    assert [each[: len(said)] for each in warnings] == [said] if said else not warnings
