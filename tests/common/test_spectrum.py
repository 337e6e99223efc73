from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from collabedit.common.contribution import Dense
from collabedit.common.errors import ContributionError
from collabedit.common.spectrum import leading_eigenvalues, none_below_
from collabedit.common.validation import Rules, check_layer

N = 160
W = "h.0.weight"


def with_eigenvalues(make, values, seed):
    """A symmetric matrix [N, N] with the eigenvalues given, and zeros for the rest."""
    padded = torch.zeros(N, dtype=torch.float64)
    padded[: len(values)] = torch.as_tensor(values, dtype=torch.float64)
    Q = make.orthogonal(N, torch.Generator().manual_seed(seed))
    matrix = (Q * padded) @ Q.mT
    return (matrix + matrix.mT) / 2


@given(least=st.floats(1e-9, 1e-2), sign=st.sampled_from([-1.0, 1.0]), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=25)
def test_one_factor_tells_whether_an_eigenvalue_is_below_a_bound(make, least, sign, seed):
    """Just above the bound none is, just below it one is, to a part in 10⁵ of the eigenvalue."""
    A = with_eigenvalues(make, [1.0] * (N - 1) + [sign * least], seed)
    assert none_below_(A.clone(), sign * least - 1e-5 * least)
    assert not none_below_(A.clone(), sign * least + 1e-5 * least)


@given(rank=st.integers(1, 20), decades=st.floats(0, 8), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=25)
def test_eigenvalues_of_a_matrix_of_low_rank_are_exact(make, rank, decades, seed):
    """Where the rank is at most `count` + 16, all are found, to rounding of the largest."""
    values = torch.logspace(0, -decades, rank, dtype=torch.float64)
    found = leading_eigenvalues(with_eigenvalues(make, values, seed), 8)
    assert len(found) == 24
    assert float((found[:rank] - values).abs().max()) < 1e-13
    assert float(found[rank:].abs().max()) < 1e-13


@given(decades=st.floats(0, 12), bend=st.floats(0.2, 4), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=25)
def test_eigenvalues_of_any_other_are_lower_bounds_that_lose_little(make, decades, bend, seed):
    """The first eight: never above the eigenvalue, and at least half of it, however flat or steep the spectrum."""
    values = 10 ** (-decades * torch.linspace(0, 1, N, dtype=torch.float64) ** bend)
    found = leading_eigenvalues(with_eigenvalues(make, values, seed), 8)
    assert bool((found[:8] <= values[:8] + 1e-13).all())
    assert bool((found[:8] >= 0.5 * values[:8] - 1e-13).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("values", "said"), [
    ([1.0] * 8, None),
    ([1.0] * 150, None),
    ([1.0] + [2e-6] * 7, None),
    ([1.0] + [2e-6] * 150, None),
    ([1.0] * 7, "rank 7.*is 8"),
    ([1.0] + [0.5e-6] * 150, "rank 1.*is 8"),
    ([1.0] * 8 + [-1e-3], "not positive semi-definite"),
    ([1.0] * 8 + [-1e-5], "not positive semi-definite"),
    ([-1.0] * 8, "not positive semi-definite"),
    ([0.0], "no positive eigenvalue"),
])  # fmt: skip
def test_a_dense_upload_is_judged_by_its_spectrum(make, values, said, dtype):
    """At a size where not all eigenvalues are computed: rank and sign to the stated tolerances, in either dtype."""
    S = with_eigenvalues(make, values, 0).to(dtype)
    update = Dense(torch.ones(3, N, dtype=dtype), (S + S.mT) / 2)
    rules = Rules(shapes={W: (3, N)}, min_rank=8)
    if said is None:
        check_layer(W, update, rules)
    else:
        with pytest.raises(ContributionError, match=said):
            check_layer(W, update, rules)
