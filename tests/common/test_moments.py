from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from collabedit.common.moments import MomentSum, SecondMoment

WHOLE = st.integers(-1000, 1000)
ROWS = st.lists(st.tuples(WHOLE, WHOLE, WHOLE), max_size=8).map(
    lambda rows: torch.tensor(rows, dtype=torch.float64).reshape(-1, 3)
)


def same(a: SecondMoment, b: SecondMoment) -> bool:
    """Equal to the bit."""
    return a.count == b.count and torch.equal(a.total, b.total)


@given(ROWS, ROWS, ROWS)
@settings(deadline=None)
def test_merge_is_associative_commutative_and_has_a_neutral_element(x, y, z):
    """On whole numbers, where float64 rounds nothing, the laws hold to the bit."""
    a, b, c = SecondMoment.of(x), SecondMoment.of(y), SecondMoment.of(z)
    assert same(a.merge(b).merge(c), a.merge(b.merge(c)))
    assert same(a.merge(b), b.merge(a))
    assert same(a.merge(SecondMoment.empty(3)), a)
    assert same(a.merge(b), SecondMoment.of(torch.cat([x, y])))


@given(cut=st.integers(0, 50), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_any_cutting_gives_the_same_mean(cut, seed):
    """A stream cut anywhere has the mean of the whole, to float64's rounding, from float32 vectors too."""
    rows = torch.randn(50, 7, generator=torch.Generator().manual_seed(seed))
    merged = SecondMoment.of(rows[:cut]).merge(SecondMoment.of(rows[cut:]))
    wanted = rows.double().mT @ rows.double() / 50
    torch.testing.assert_close(merged.mean(), wanted, rtol=1e-13, atol=1e-14)
    assert torch.equal(merged.mean(), merged.mean().mT)


def test_neither_operand_changes():
    """Merging makes a new moment."""
    a, b = SecondMoment.of(torch.ones(2, 3)), SecondMoment.of(torch.ones(1, 3))
    a.merge(b)
    assert a.count == 2
    assert float(a.total[0, 0]) == 2.0


def test_what_cannot_be_is_refused():
    """No vectors have no mean, and moments of different dimensions do not merge."""
    with pytest.raises(ValueError, match="no vectors"):
        SecondMoment.empty(3).mean()
    with pytest.raises(ValueError, match="no vectors"):
        MomentSum.empty(3).into_mean()
    with pytest.raises(ValueError, match="dimension 3 and 4"):
        SecondMoment.empty(3).merge(SecondMoment.empty(4))


@given(cuts=st.lists(st.integers(0, 40), max_size=4), d=st.sampled_from([3, 7, 700]), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_a_sum_in_place_is_the_moment(cuts, d, seed):
    """Added to piece by piece, with half of the products, it is what `SecondMoment.of` gives, symmetric to the bit."""
    rows = torch.randn(40, d, generator=torch.Generator().manual_seed(seed))
    running, places = MomentSum.empty(d), sorted({0, 40, *cuts})
    for start, end in pairwise(places):
        running.add(rows[start:end])
    found = running.moment()
    assert found.count == 40
    torch.testing.assert_close(found.total, SecondMoment.of(rows).total, rtol=1e-12, atol=1e-12)
    assert torch.equal(found.total, found.total.mT)
    wanted, memory = found.mean(), running.total.data_ptr()
    mean = running.into_mean()
    assert torch.equal(mean, wanted)
    assert mean.data_ptr() == memory
