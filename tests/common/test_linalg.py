from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from collabedit.common.errors import NotPositiveDefiniteError
from collabedit.common.linalg import Cholesky


@given(n=st.integers(1, 40), condition=st.sampled_from([1.0, 1e3, 1e7]), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_solves_from_both_sides(make, n, condition, seed):
    """A⁻¹ B and B A⁻¹ leave residuals at float64's rounding, whatever the condition number."""
    generator = torch.Generator().manual_seed(seed)
    A = make.spd(n, condition, generator)
    B = torch.randn(n, 3, dtype=torch.float64, generator=generator)
    chol = Cholesky.of(A)
    left, right = chol.solve_left(B), chol.solve_right(B.mT)
    for residual, found in ((A @ left - B, left), (right @ A - B.mT, right)):
        assert float(residual.norm()) <= 1e-13 * n * float(A.norm() * found.norm())


def test_the_matrix_stays_as_it_is(make):
    """Factoring leaves the caller's matrix alone, unless it may be overwritten: then the factor has its memory."""
    A = make.spd(9, 10.0, torch.Generator().manual_seed(1))
    before = A.clone()
    factor = Cholesky.of(A).factor
    assert torch.equal(A, before)
    in_place = Cholesky.of(A, overwrite=True).factor
    assert torch.equal(in_place, factor)
    assert in_place.data_ptr() == A.data_ptr()


def test_float32_is_widened_before_it_is_factored(make):
    """A float32 matrix is solved in float64."""
    A = make.spd(9, 10.0, torch.Generator().manual_seed(1)).to(torch.float32)
    assert torch.equal(Cholesky.of(A).factor, Cholesky.of(A.double()).factor)


@pytest.mark.parametrize("n", [3, 200])
@pytest.mark.parametrize("pivot", [0.0, -0.5])
def test_an_indefinite_matrix_is_named_with_its_smallest_pivot(make, n, pivot):
    """The error names the matrix and the pivot at which the factor ends: here row n − 1, by construction."""
    F = torch.linalg.cholesky(make.spd(n, 100.0, torch.Generator().manual_seed(2)))
    D = torch.ones(n, dtype=torch.float64)
    D[n - 2] = pivot
    unit = F / F.diagonal()
    with pytest.raises(NotPositiveDefiniteError, match=r"C of layer 5 is not positive definite") as caught:
        Cholesky.of((unit * D) @ unit.mT - 1e-9 * torch.diag(1 - D.sign().abs()), what="C of layer 5")
    assert f"at row {n - 1}" in caught.value.what
    assert caught.value.mend


def test_a_matrix_with_nan_is_not_positive_definite():
    """Not a number anywhere is an error and no result."""
    A = torch.eye(5, dtype=torch.float64)
    A[3, 3] = float("nan")
    with pytest.raises(NotPositiveDefiniteError):
        Cholesky.of(A)


@given(n=st.integers(2, 30), dead=st.sets(st.integers(0, 29), max_size=8), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_inputs_that_were_never_active_are_left_out(make, n, dead, seed):
    """Rows and columns of zeros, as ReLU leaves them, get zeros; the others what they get without these."""
    generator = torch.Generator().manual_seed(seed)
    alive = [index for index in range(n) if index not in dead] or [0]
    A = torch.zeros(n, n, dtype=torch.float64)
    B = torch.zeros(3, n, dtype=torch.float64)
    small = make.spd(len(alive), 1e3, generator)
    A[torch.tensor(alive)[:, None], torch.tensor(alive)] = small
    B[:, alive] = torch.randn(3, len(alive), dtype=torch.float64, generator=generator)
    found = Cholesky.of(A).solve_right(B)
    expected = Cholesky.of(small).solve_right(B[:, alive])
    assert torch.allclose(found[:, alive], expected, rtol=1e-9, atol=1e-12)
    assert not found[:, sorted(set(range(n)) - set(alive))].any()


def test_a_zero_pivot_of_an_active_input_is_still_an_error():
    """A zero on the diagonal is no dead input where its row is not zero."""
    A = torch.eye(3, dtype=torch.float64)
    A[2, 2], A[1, 2], A[2, 1] = 0.0, 0.5, 0.5
    with pytest.raises(NotPositiveDefiniteError):
        Cholesky.of(A)
