"""Which encoding an upload takes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from collabedit.common.contribution import Dense, Factored
from collabedit.common.editors import MEMIT
from collabedit.common.encoding import encoded, numbers, smaller
from collabedit.common.factors import factor_update

GPT_J, GPT2_XL = (4096, 16384), (1600, 6400)


@pytest.mark.parametrize(
    ("shape", "rank", "wanted"),
    [
        (GPT_J, 500, "factored"),
        (GPT2_XL, 100, "factored"),
        (GPT2_XL, 3840, "factored"),
        (GPT2_XL, 3841, "dense"),
        (GPT2_XL, 6400, "dense"),
    ],
)
def test_the_smaller_encoding_is_taken(shape, rank, wanted):
    """r (d_out + d_in) against d_out d_in + d_in (d_in + 1) / 2: they meet at r = 0.6 d_in where d_out = d_in / 4."""
    assert smaller(shape, rank) == wanted


@given(d_out=st.integers(1, 20), d_in=st.integers(1, 20), rank=st.integers(1, 20))
def test_no_other_encoding_takes_fewer_numbers(d_out, d_in, rank):
    """Whatever the shape and rank; and the count is that of the tensors themselves."""
    chosen = numbers(smaller((d_out, d_in), rank), (d_out, d_in), rank)
    assert chosen == min(d_out * rank + d_in * rank, d_out * d_in + sum(range(1, d_in + 1)))


def test_auto_goes_by_size_and_stays_with_the_factors_without_a_prior(make):
    """Both carry the same; nobody fetches C0 to save a few bytes."""
    thin, thick = (make.problem(seed=1, d_in=32, d_out=8, parties=1, edits=edits) for edits in (4, 30))
    for one, kind in ((thin, Factored), (thick, Dense)):
        update = factor_update(one.keys[0], one.residuals[0])
        asked = []

        def prior(one=one, asked=asked):
            asked.append(1)
            return one.known

        upload = encoded(update, "auto", MEMIT, prior)
        assert isinstance(upload, kind)
        assert len(asked) == (kind is Dense)
        assert make.distance(one.solve(upload), one.global_update) < 1e-9
        assert encoded(update, "auto", MEMIT, None) is update
        assert encoded(update, "factored", MEMIT, prior) is update
        assert isinstance(encoded(update, "dense", MEMIT, prior), Dense)
        with pytest.raises(ValueError, match="needs the prior"):
            encoded(update, "dense", MEMIT, None)
        assert torch.equal(update.kkt_factor, factor_update(one.keys[0], one.residuals[0]).kkt_factor)
