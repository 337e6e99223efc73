from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from collabedit.common.contribution import Dense
from collabedit.common.linalg import ROWS, add_gram_, add_lower_product_, add_upper_, diagonal_blocks, mirror_
from collabedit.common.triangle import add_product_, add_to_upper_, order_of, pack, packed_length, unpack

SIZES = st.sampled_from([1, 2, 3, 17, ROWS, ROWS + 1, 2 * ROWS + 5])


def symmetric(n: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """A symmetric matrix [n, n]."""
    matrix = torch.randn(n, n, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return matrix + matrix.mT


@given(n=SIZES, seed=st.integers(0, 99), dtype=st.sampled_from([torch.float32, torch.float64]))
@settings(deadline=None, max_examples=20)
def test_a_matrix_comes_back_from_its_triangle(n, seed, dtype):
    """To the bit, at half the numbers; the order of the numbers is row after row."""
    S = symmetric(n, seed, dtype)
    packed = pack(S)
    assert packed.dtype == dtype
    assert len(packed) == packed_length(n)
    assert order_of(len(packed)) == n
    assert torch.equal(packed, S[torch.triu(torch.ones(n, n, dtype=torch.bool))])
    assert torch.equal(unpack(packed), S.double())


@given(n=SIZES, m=st.integers(1, 5), seed=st.integers(0, 99), dtype=st.sampled_from([torch.float32, torch.float64]))
@settings(deadline=None, max_examples=20)
def test_products_and_sums_need_no_unpacking(n, m, seed, dtype):
    """rows S added to what is there, and S added to an upper triangle, the lower one left as it was."""
    S, rows = symmetric(n, seed, dtype), torch.randn(m, n, dtype=torch.float64)
    into = torch.ones(m, n, dtype=torch.float64)
    add_product_(into, rows, pack(S))
    torch.testing.assert_close(into, 1 + rows @ S.double())
    gram = torch.full((n, n), 2.0, dtype=torch.float64)
    add_to_upper_(gram, pack(S))
    assert torch.equal(gram, torch.full_like(gram, 2.0) + S.double().triu())


@given(n=SIZES, r=st.integers(1, 9), seed=st.integers(0, 99), scale=st.sampled_from([1.0, 0.5]))
@settings(deadline=None, max_examples=20)
def test_half_a_gram_matrix_is_all_of_it(n, r, seed, scale):
    """The upper triangle of A + s·F Fᵀ, and the rest by symmetry."""
    A, F = symmetric(n, seed), torch.randn(n, r, dtype=torch.float64)
    wanted = A + scale * F @ F.mT
    add_gram_(A, F, scale=scale)
    torch.testing.assert_close(A.triu(), wanted.triu())
    mirror_(A)
    torch.testing.assert_close(A, wanted)
    assert torch.equal(A, A.mT)


@given(n=SIZES, seed=st.integers(0, 99))
@settings(deadline=None, max_examples=15)
def test_a_matrix_below_the_diagonal_outlives_another_above_it(n, seed):
    """C, then C + S + F Fᵀ above: products with C are still to be had, in the same memory."""
    C, S, F, rows = symmetric(n, seed), symmetric(n, seed + 1), torch.randn(n, 3).double(), torch.randn(4, n).double()
    held, diagonal, into = C.clone(), diagonal_blocks(C), torch.ones(4, n, dtype=torch.float64)
    add_upper_(held, S)
    add_gram_(held, F)
    add_lower_product_(into, rows, held, diagonal)
    torch.testing.assert_close(into, 1 + rows @ C)
    torch.testing.assert_close(held.triu(), (C + S + F @ F.mT).triu())


def test_no_triangle_has_two_numbers():
    """A length that is no triangle's is an error."""
    with pytest.raises(ValueError, match="2 numbers"):
        order_of(2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_upload_may_hold_either_form(dtype):
    """S, its sum and its product with Δ are the same for a matrix and for its triangle."""
    S, delta = symmetric(40, 1, dtype), torch.randn(7, 40, dtype=dtype)
    full, packed = Dense(delta, S), Dense(delta, pack(S))
    assert torch.equal(full.kkt(), packed.kkt())
    assert torch.equal(full.kkt_triangle, packed.kkt_triangle)
    sums, moments = (
        [torch.zeros(40, 40, dtype=torch.float64) for _ in "fp"],
        [torch.zeros(7, 40).double() for _ in "fp"],
    )
    for update, gram, moment in zip((full, packed), sums, moments, strict=True):
        update.add_kkt_to(gram)
        update.add_delta_kkt_to(moment)
    assert torch.equal(*sums)
    torch.testing.assert_close(*moments)
