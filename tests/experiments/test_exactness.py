"""The benchmark of exactness at small size: which schedules equal one party with every edit, and how closely."""

from __future__ import annotations

import pytest
import torch

from collabedit.experiments.exactness import SCHEDULES, SHARES, Setting, Wire, distance, kept, rows_of, totals
from collabedit.experiments.grounds import CONDITION, SIZE, Atlas, Synthetic


@pytest.fixture(scope="module")
def small() -> Synthetic:
    """Three layers, three parties with four edits each, three rounds."""
    return Synthetic.made(layers=3, d=16, hidden=48, parties=3, edits=4, rounds=3)


@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "dynamic"])
@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_exact_schedules_stay_exact_over_rounds(small: Synthetic, schedule, shares, dynamic: bool) -> None:
    """In every encoding and dtype, after one round and three; the sequential one-shot is not, by far."""
    rows = rows_of(small, Setting(schedule, shares, dynamic))
    assert [len(row.distances) for row in rows] == [3, 3, 3, 3]
    for row in rows:
        if schedule == "one-shot sequential":
            assert row.within is None
            assert min(row.distances) > 1e-2
        else:
            assert row.within, row


def test_only_layer_sync_with_its_shares_is_memit(small: Synthetic) -> None:
    """The simultaneous spread and equal shares are other edits, which the merge gets exactly."""
    wire = (Wire("factored", "float64"),)
    found = {
        (schedule, shares): rows_of(small, Setting(schedule, shares, dynamic=False), wire)[0].to_memit
        for schedule in SCHEDULES
        for shares in SHARES
    }
    assert found.pop(("layer-sync", "remaining")) < 1e-9
    assert min(found.values()) > 1e-2


def test_the_covariance_matters_from_the_second_round_on(small: Synthetic) -> None:
    """Dynamic or not, the first round is the same to the bit; later ones differ."""
    fixed, dynamic = (totals(small, Setting("layer-sync", "remaining", each), None, 2) for each in (False, True))
    assert distance(fixed[0], dynamic[0]) == 0
    assert distance(fixed[1], dynamic[1]) > 1e-3


def test_synthetic_layers_are_as_ill_conditioned_as_they_say(small: Synthetic) -> None:
    """cond(C) = 1e7 and ‖S‖ of one party = 1e-6 ‖C‖."""
    for index, name in enumerate(small.weights):
        C = small.priors[name].dense()
        values = torch.linalg.eigvalsh(C)
        assert float(values[-1] / values[0]) == pytest.approx(CONDITION, rel=0.05)
        keys, _ = small.measure(small.rounds[0][0], index, "equal")
        assert float(torch.linalg.matrix_norm(keys, 2) ** 2 / values[-1]) == pytest.approx(SIZE, rel=1e-6)


def test_a_ground_is_left_as_it_was(small: Synthetic) -> None:
    """Also by a round: rows do not depend on those before."""
    before = {name: small.read(name) for name in small.weights}
    rows_of(small, Setting("one-shot sequential", "equal", dynamic=True), (Wire("dense", "float32"),))
    assert all(torch.equal(small.read(name), weight) for name, weight in before.items())
    with pytest.raises(RuntimeError, match="stop"), kept(small):
        small.write(small.weights[0], torch.zeros_like(before[small.weights[0]]))
        raise RuntimeError("stop")
    assert torch.equal(small.read(small.weights[0]), before[small.weights[0]])


def test_the_engine_is_exact_on_the_bundled_model() -> None:
    """Two rounds of three parties on atlas in float64, layer-sync, dynamic covariance."""
    torch.set_num_threads(1)
    atlas = Atlas.made(first=1, later=1, rounds=2)
    wires = (Wire("factored", "float32"), Wire("factored", "float64"))
    rows = rows_of(atlas, Setting("layer-sync", "remaining", dynamic=True), wires, atlas.judge)
    assert all(row.within for row in rows), rows
    assert 0 <= rows[0].judged["Score"] <= 1
    assert rows[1].judged == {}
