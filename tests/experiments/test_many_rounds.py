"""A federation over many rounds in memory, and the studies made of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from collabedit.client.weights import add_update, restored
from collabedit.common.factors import accumulate_kkt
from collabedit.common.model_folder import find_model
from collabedit.experiments.atlas.edits import many
from collabedit.experiments.atlas.world import build_world
from collabedit.experiments.baselines import Bench, Party, distance, layer_by_layer
from collabedit.experiments.bundled import party_edits
from collabedit.experiments.many_rounds import Dynamics, ManyRounds, left_over
from collabedit.experiments.studies.field import Field, parties_of
from collabedit.experiments.studies.figure3 import shares_left, step_again
from collabedit.experiments.studies.registry import STUDIES, study_of
from collabedit.experiments.studies.runner import Results, run
from collabedit.experiments.studies.settings import Table5Settings
from collabedit.experiments.studies.table5 import DIFFERENCE, DYNAMIC, IMMUTABLE, TABLE5


@pytest.fixture(scope="module")
def bench() -> Bench:
    """The bundled model."""
    return Bench.of(find_model("atlas"))


@pytest.fixture(scope="module")
def rounds(bench: Bench) -> list[list[Party]]:
    """Two rounds of two parties, z of the unedited model."""
    federation = ManyRounds(bench)
    first, second, _ = party_edits(find_model("atlas"), 3, 4)
    dealt = [(first[at], second[at]) for at in (slice(0, 2), slice(2, 4))]
    return [list(parties_of(own, federation.targets([*own[0], *own[1]]))) for own in dealt]


def test_one_round_is_a_round(bench: Bench, rounds: list[list[Party]]) -> None:
    """The first round is `layer_by_layer` to the bit, whatever β1 is; its update is in the model afterwards."""
    alone = layer_by_layer(bench, rounds[0])
    with restored(bench.loaded, bench.weights):
        update = ManyRounds(bench, dynamics=Dynamics(1.0, 7.0)).run(rounds[0])
    assert all(torch.equal(update[name], alone[name]) for name in alone)


def test_two_rounds_have_the_sum_in_the_prior(bench: Bench, rounds: list[list[Party]]) -> None:
    """The second round solves with λ·C0 + β1·ΣS of the first, as eq. 7 says; with β1 = 0 with λ·C0."""
    given: dict[str, Any] = {}
    with restored(bench.loaded, bench.weights):
        first = layer_by_layer(bench, rounds[0], given.__setitem__)
        for name, delta in first.items():
            add_update(bench.loaded, name, delta)
        immutable = layer_by_layer(bench, rounds[1])
        priors = {
            name: replace(prior, beta1=50.0, accumulated=accumulate_kkt(
                None, [each.layers[name] for each in given[name]], d_in=prior.mean.shape[0]
            ))
            for name, prior in bench.priors.items()
        }  # fmt: skip
        dynamic = layer_by_layer(replace(bench, priors=priors), rounds[1])
    for beta1, wanted in ((50.0, dynamic), (0.0, immutable)):
        federation = ManyRounds(bench, dynamics=Dynamics(1.0, beta1))
        with restored(bench.loaded, bench.weights):
            federation.run(rounds[0])
            assert distance(federation.run(rounds[1]), wanted) < 1e-5
        assert bool(federation.pieces) == (beta1 > 0)
    assert distance(immutable, dynamic) > 1e-3


def test_what_eq_6_leaves_is_what_an_update_leaves() -> None:
    """On a linear layer R_new = R − ΔK exactly; repeated, it falls to nothing."""
    generator = torch.Generator().manual_seed(0)
    keys, residuals = (torch.randn(size, 5, generator=generator, dtype=torch.float64) for size in (8, 3))
    prior = torch.eye(8, dtype=torch.float64) * 2
    delta = residuals @ keys.mT @ torch.linalg.inv(prior + keys @ keys.mT)
    torch.testing.assert_close(left_over(residuals, keys, prior), residuals - delta @ keys)
    norms = [float(residuals.norm())]
    for _ in range(200):
        residuals = left_over(residuals, keys, prior)
        norms.append(float(residuals.norm()))
    assert all(after < before for before, after in pairwise(norms))
    assert norms[-1] < 1e-2 * norms[0]


def test_further_edits_are_many_and_contradict_none() -> None:
    """More edits than people; no pair of person and relation twice, no neighbour among the edited."""
    found = many(build_world(), 1000, 0)
    asked = [(each["requested_rewrite"]["subject"], each["requested_rewrite"]["relation_id"]) for each in found]
    assert len(set(asked)) == 1000
    people = {subject for subject, _ in asked}
    for each in found:
        assert len(each["neighborhood_prompts"]) == 8
        assert not any(person in prompt for prompt in each["neighborhood_prompts"] for person in people)
    with pytest.raises(ValueError, match="only 2000 pairs"):
        many(build_world(), 2001, 0)


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """z vectors, shared by all studies."""
    return tmp_path_factory.mktemp("targets")


def ran(name: str, out: Path, targets: Path, **flags: Any) -> Results:
    """A study with some settings."""
    quiet = SimpleNamespace(say=lambda line: None, party=lambda state: None, tick=lambda *_: None)
    return run(study_of(name), STUDIES[name].settings.model_validate(flags), quiet, out=out, targets=targets)


SMALL: dict[str, Any] = {"parties": 2, "edits_per_party": 1, "rounds": 2}
TWO = Table5Settings(rounds=2, seeds=1)


def test_rounds(tmp_path: Path, targets: Path) -> None:
    """collabedit has global-edit's Score in every round; five methods, two kinds of edits."""
    found = ran("rounds", tmp_path, targets, z="once", **SMALL).rows
    assert len(found) == 5 * 2 * 2
    at = {(row["method"], row["of"], row["round"]): row["Score"] for row in found}
    assert all(at["collabedit", *key] == score for (method, *key), score in at.items() if method == "global-edit")


def test_table5(tmp_path: Path, targets: Path) -> None:
    """Both ways begin alike and have lost nothing after the first round; what is spared is the difference of losses,
    with an interval of its own, in the rows, in a table and beside the number of rounds.
    """
    found = ran("table5", tmp_path, targets, z="once", seeds=2, **SMALL)
    assert len(found.rows) == 4
    ways = {way: [row for row in found.rows if row["method"] == way] for way in (IMMUTABLE, DYNAMIC)}
    assert ways[IMMUTABLE][0]["Score"] == ways[DYNAMIC][0]["Score"]
    assert all(own[0]["lost"] == 0 for own in ways.values())
    assert set(found.rows[0]["intervals"]) == {"ES", "PS", "NS", "Score", "lost"}
    for immutable, dynamic in zip(*ways.values(), strict=True):
        low, high = dynamic["intervals"]["spared"]
        assert dynamic["spared"] == pytest.approx(immutable["lost"] - dynamic["lost"])
        assert low <= dynamic["spared"] <= high
    assert ways[DYNAMIC][0]["intervals"]["spared"] == [0, 0]
    assert found.tables[-1].columns == ("round", IMMUTABLE, DYNAMIC, DIFFERENCE)
    assert found.notes[0].startswith("2 rounds of 2 parties with 1 edits each; 2 deals, 4 edits")


def test_what_is_spared_is_paired() -> None:
    """An immutable C that keeps one kind less in every edit is worse without doubt, however much the edits differ;
    where the dynamic C began lower by as much, nothing is spared.
    """
    kept = [(float(at % 2), at % 3 / 2, 1.0) for at in range(60)]
    fewer = [(efficacy, paraphrase, 0.5) for efficacy, paraphrase, _ in kept]
    best = {"after": [after(kept), after(kept)]}
    rows = TABLE5.rows(TWO, {f"{IMMUTABLE}/0": {"after": [after(kept), after(fewer)]}, f"{DYNAMIC}/0": best})
    assert rows[-1]["spared"] == pytest.approx(rows[1]["lost"])
    assert 0 < rows[-1]["intervals"]["spared"][0] < rows[-1]["spared"] < rows[-1]["intervals"]["spared"][1]
    worn = {"after": [after(fewer), after(fewer)]}
    rows = TABLE5.rows(TWO, {f"{IMMUTABLE}/0": best, f"{DYNAMIC}/0": worn})
    assert (rows[-1]["spared"], rows[-1]["intervals"]["spared"]) == (0, [0, 0])


def after(edits: list[tuple[float, float, float]]) -> dict[str, Any]:
    """Packed scores of CounterFact's kind."""
    return {"family": "counterfact", "edits": [[str(at), *each] for at, each in enumerate(edits)]}


def test_ablation(tmp_path: Path, targets: Path) -> None:
    """β1 = λ is the model's λ; each pair has a row for the first, the last and all rounds, over the edits of all
    deals, beside the default pair over the same edits.
    """
    rows = ran("ablation-beta", tmp_path, targets, z="once", seeds=1, **SMALL).rows
    assert len(rows) == 8 * 3
    assert {row["beta1"] for row in rows} == {0.0, 0.3, 1.0, 3.0, 10.0, 1000.0}
    at = {(row["method"], row["beta0"], row["beta1"]): row for row in rows}
    for (group, *_), row in at.items():
        default = at[group, 1.0, 1.0]
        assert row["beside β1 = 1"] == pytest.approx(row["Score"] - default["Score"])
        assert default["intervals"]["beside β1 = 1"] == [0, 0]


def test_figure3(tmp_path: Path, targets: Path) -> None:
    """The residual falls, alike for both methods; a step leaves about what eq. 6 says. One layer leaves exactly that in
    every round, from the first residual on.
    """
    rows = ran("figure3", tmp_path, targets, parties=2, edits_per_party=2, rounds=2).rows
    own = {
        method: [row["residual"] for row in rows if row["method"] == method] for method in ("collabedit", "global-edit")
    }
    assert own["collabedit"] == pytest.approx(own["global-edit"], rel=1e-5)
    assert own["collabedit"] == sorted(own["collabedit"], reverse=True)
    for row in rows:
        if row["measured"] is not None:
            assert row["measured"] == pytest.approx(row["eq. 6"], abs=0.2)
    alone = [row for row in rows if row["method"] == "one layer"]
    assert [row["residual"] for row in alone] == pytest.approx([row["said"] for row in alone], rel=1e-5)
    assert alone[-1]["residual"] < 0.5 * alone[0]["residual"]


def test_figure3_is_exact_where_the_key_is_the_prompts(bench: Bench, rounds: list[list[Party]]) -> None:
    """With the bare prompt as the only template, the last layer's step leaves what eq. 6 says it does."""
    field = Field(replace(bench, templates=(("{}",),)), tuple(rounds[0]))
    with restored(bench.loaded, bench.weights):
        for _ in range(2):
            before, after = step_again(field, "collabedit")
            assert before is not None
            measured, said = shares_left(field, before, after)
            assert measured == pytest.approx(said, rel=1e-3)
