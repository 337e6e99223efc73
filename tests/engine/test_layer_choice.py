"""Averages over facts by token class, and the rule that recommends layers."""

from __future__ import annotations

from math import isnan

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from collabedit.client.layer_choice import MOST, SHARE, averages, choose, last_reaching, recommended
from collabedit.client.probes import Probe
from collabedit.client.tracing import KINDS, Trace
from collabedit.common.edits import Edit

FACT = Edit(prompt="The capital of {} is", subject="Norway", target_new="Oslo")
EFFECTS = st.lists(st.floats(-1, 1, allow_nan=False), min_size=1, max_size=48)


def made(first: int, last: int, count: int, effects: torch.Tensor) -> Trace:
    """A trace whose effects [kinds, tokens, layers] are given."""
    probe = Probe(FACT, tuple(range(count)), ("x",) * count, first, last, 0)
    return Trace(probe, 1.0, 0.25, effects.double() + 0.25)


@given(EFFECTS)
def test_the_recommended_layers_follow_the_rule(effects: list[float]) -> None:
    """A run that ends at the first peak, as long as the rule allows and no longer; nothing where nothing helps."""
    layers = recommended(effects)
    if max(effects) <= 0:
        assert layers == ()
        return
    peak = effects.index(max(effects))
    assert layers == tuple(range(layers[0], peak + 1))
    assert len(layers) <= MOST
    enough = SHARE * effects[peak]
    assert all(effects[layer] >= enough for layer in layers)
    assert len(layers) == MOST or layers[0] == 0 or effects[layers[0] - 1] < enough


@pytest.mark.parametrize(
    ("effects", "expected"),
    [
        ([0.0] * 10 + [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.065, 0.07, 0.06, 0.05] + [0.0] * 28, (13, 14, 15, 16, 17)),
        ([0.88, 0.03, 0.01, 0.02], (0,)),
        ([0.1, 0.5, 0.9, 1.0, 0.9], (1, 2, 3)),
        ([0.9, 0.1, 0.9, 1.0], (2, 3)),
        ([0.5, 0.5], (0,)),
        ([0.0, -0.1], ()),
    ],
)
def test_recommended_layers(effects: list[float], expected: tuple[int, ...]) -> None:
    """A peak at 17 in a broad site gives MEMIT's layers of GPT-2 XL; a gap ends the run; of equal peaks the first."""
    assert recommended(effects) == expected


def test_a_state_carries_the_fact_until_it_falls_below_half() -> None:
    """Counted up from the peak; a later rise does not count."""
    assert last_reaching([0.9, 0.9, 0.8, 0.3, 0.6]) == 2
    assert last_reaching([0.1, 0.2]) == 1


def test_a_facts_tokens_of_one_class_count_by_their_mean() -> None:
    """Two middle tokens of one fact weigh as much as one of another; the error is over facts."""
    long, short = torch.zeros(3, 5, 2), torch.zeros(3, 4, 2)
    long[1, 1, 0], long[1, 2, 0], short[1, 1, 0] = 0.2, 0.4, 0.5
    found = averages([made(0, 3, 5, long), made(0, 2, 4, short)])
    assert list(found) == ["first subject token", "middle subject tokens", "last subject token", "last token"]
    middle = found["middle subject tokens"]["mlp"]
    assert middle.mean == pytest.approx((0.4, 0.0))
    assert middle.error == pytest.approx((0.1, 0.0))  # |0.5 - 0.3| / √2 / √2
    assert middle.facts == 2
    assert found["middle subject tokens"]["hidden"].mean == (0.0, 0.0)


def test_one_fact_has_no_standard_error() -> None:
    """Neither is its peak sure."""
    effects = torch.full((3, 2, 2), 0.5)
    found = averages([made(0, 0, 2, effects)])
    assert all(isnan(each) for each in found["last subject token"]["mlp"].error)
    assert not choose(found).sure


@pytest.mark.parametrize(("spread", "sure"), [(0.01, True), (0.9, False)])
def test_a_peak_is_sure_two_errors_above_zero(spread: float, sure: bool) -> None:
    """The same mean, over facts that agree and over facts that do not."""
    traces = []
    for sign in (-1, 1):
        effects = torch.zeros(len(KINDS), 2, 3)
        effects[KINDS.index("mlp"), 0, 1] = 0.5 + sign * spread
        effects[KINDS.index("hidden"), 0] = torch.tensor([0.1, 0.5, 0.4])
        traces.append(made(0, 0, 2, effects))
    choice = choose(averages(traces))
    assert (choice.layers, choice.peak, choice.carried_to) == ((1,), 1, 2)
    assert choice.sure == sure
