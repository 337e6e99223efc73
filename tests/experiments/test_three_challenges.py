"""The studies of conflict, overlap and forgetting, at toy sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from collabedit.common.covariance_file import CovarianceFile
from collabedit.common.errors import UsageError
from collabedit.experiments.studies import overlap
from collabedit.experiments.studies.continual import flat
from collabedit.experiments.studies.duels import contested, settled
from collabedit.experiments.studies.overlap import HANDLED, Chosen
from collabedit.experiments.studies.registry import STUDIES, study_of
from collabedit.experiments.studies.retention import DIFFERENCE, DYNAMIC, IMMUTABLE
from collabedit.experiments.studies.runner import Results, run
from collabedit.experiments.studies.settings import OverlapSettings, Table4Settings
from collabedit.experiments.studies.table4 import AVG, BEFORE, FORMS, GAIN, SUCC, TABLE4, other_wordings
from collabedit.experiments.trained.run import learn
from tests.experiments.made_up_facts import TINY, made_up_easy, made_up_folder

QUIET: Any = SimpleNamespace(say=lambda line: None, party=lambda state: None, tick=lambda *_: None)


def ran(name: str, out: Path, **flags: Any) -> Results:
    """A study with some settings."""
    settings = STUDIES[name].settings.model_validate(flags)
    return run(study_of(name), settings, QUIET, out=out, targets=out / "targets")


def test_who_came_first_wins_every_conflict() -> None:
    """Parties come in their order; each conflict has one winner, and what it names beside the two is a third object."""
    dealt = contested(Table4Settings(parties=3, edits_per_party=4))
    duels = settled(dealt)
    assert len(duels) == 6
    for duel, pair in zip(duels, dealt.conflicts, strict=True):
        assert duel.party == min(pair.first.party, pair.second.party)
        assert (duel.target.subject, duel.target.prompt) == (duel.conflict.subject, duel.conflict.prompt)
        assert len({duel.target.target_new, duel.conflict.target_new, duel.other}) == 3
        assert not set(other_wordings(duel.target)) & {duel.target.text}


def test_table4(tmp_path: Path) -> None:
    """Each form settles what the round with both left open; the example is of one edit, before and after."""
    found = ran("table4", tmp_path, parties=2, edits_per_party=4)
    rows = {row["method"]: row for row in found.rows if row["method"] != "example"}
    assert list(rows) == [BEFORE, *FORMS]
    for form in FORMS:
        assert rows[form][AVG] > rows[BEFORE][AVG]
        assert rows[form][GAIN] == pytest.approx(rows[form][SUCC] - rows[BEFORE][SUCC])
        assert GAIN in rows[form]["intervals"]
    before, after = (row for row in found.rows if row["method"] == "example")
    assert before["prompt"] == after["prompt"]
    assert after["target"] - after["conflict"] > before["target"] - before["conflict"]


def test_the_example_of_table4_is_of_objects_that_stand_apart() -> None:
    """Not of a pair of which one begins with the other, however likely both are: whoever says it says both."""

    def edit(target: str, conflict: str, likely: float) -> dict[str, Any]:
        objects = {"target object": target, "conflict object": conflict, "other object": "salsa"}
        judged = {"said first": 1.0, "Succ, other wordings": None, "NS": None}
        return {"prompt": target, "target": likely, "conflict": likely, "other": 0.0, **objects, **judged}

    edits = [edit("jazz", "blues", 0.3), edit("trance music", "trance", 0.9), edit("rock", "rock and roll", 0.8)]
    rows = TABLE4.rows(Table4Settings(), {key: {"edits": edits} for key in (BEFORE, *FORMS)})
    assert [row["prompt"] for row in rows if row["method"] == "example"] == ["jazz", "jazz"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data folder with made-up conflicts in the Easy sets' form, and a tiny model that was trained in it."""
    root = tmp_path_factory.mktemp("easy")
    data = made_up_easy(made_up_folder(root / "data"))
    recipe = replace(TINY.recipe, inner=24)  # of more, so short a text gives a C0 that is singular
    size = replace(TINY, recipe=recipe, whole=False, stated=True)
    return data, learn(data, root / "model", size, QUIET, facts="easy-conflict").folder


def test_table4_on_the_easy_data_with_a_model_folder(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """The data set's own conflicts, without those that are none; paraphrases beyond the first four stay to be asked."""
    data, model = trained
    settings: dict[str, Any] = {"model": str(model), "records": "easy-conflict", "data": data, "parties": 2}
    dealt = contested(Table4Settings(**settings, edits_per_party=4))
    assert dealt.bystanders == ()
    assert {(dealt.at(pair.first).target_new, dealt.at(pair.second).target_new) for pair in dealt.conflicts} == {
        ("Elmoor", "Quill")
    }
    found = ran("table4", tmp_path, **settings, edits_per_party=2)
    rows = [row for row in found.rows if row["method"] != "example"]
    assert [row["edits"] for row in rows] == [2] * 4
    assert all("Succ, other wordings" in row and "NS" not in row for row in rows)
    with pytest.raises(UsageError, match="4 conflicts, not 6"):
        ran("table4", tmp_path / "many", **settings, edits_per_party=6)


def test_c0_of_a_model_is_over_what_it_was_taught(trained: tuple[Path, Path]) -> None:
    """Where its size says so: C0 over Wikipedia alone does not hold what a model that read none of it knows."""
    said = CovarianceFile.open(trained[1] / "covariance.safetensors").metadata
    assert (said.text or "").startswith("the statements and the first ")


def test_what_overlaps_comes_as_often_as_it_is_said() -> None:
    """Copies are with other parties of the same round; all earlier ones come again; a greater share has the smaller."""
    deal = tuple(settled_rounds())
    settings = OverlapSettings(parties=3, edits_per_party=4, rounds=3, copies=3)
    half, quarter = (Chosen.of(deal, share, 3, settings) for share in (0.5, 0.25))
    for number in range(3):
        assert len(flat([half.copies[number]])) == 6 * 2
        assert len(flat([half.again[number]])) == 6 * number
        assert set(flat([quarter.copies[number]])) < set(flat([half.copies[number]]))
        for fresh, copies in zip(deal[number], half.copies[number], strict=True):
            assert not set(fresh) & set(copies)
    assert not any(flat(Chosen.of(deal, 0.0, 3, settings).copies))


def settled_rounds() -> list[Any]:
    """Three rounds of three parties with four edits each."""
    dealt = contested(Table4Settings(parties=18, edits_per_party=4))
    fresh = [dealt.at(pair.first) for pair in dealt.conflicts]
    return [
        tuple(tuple(fresh[12 * number + 4 * party : 12 * number + 4 * party + 4]) for party in range(3))
        for number in range(3)
    ]


def test_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Handled, an edit is merged once in its round and skipped later where it is known; without overlap they agree."""
    monkeypatch.setattr(overlap, "SHARES", (0.0, 0.4))
    found = ran("overlap", tmp_path, parties=2, edits_per_party=5, rounds=2, copies=2)
    alone, none, most = "left alone, 2 parties", 0.0, 0.4
    rows = {(row["method"], row["overlap"]): row for row in found.rows}
    assert rows[alone, none]["Score"] == rows[HANDLED, none]["Score"]
    assert rows[alone, none]["merged"] == 20
    assert rows[alone, most]["merged"] == 20 + 2 * 4 + 4
    assert rows[alone, most]["Score lost"] == pytest.approx(rows[HANDLED, most]["Score"] - rows[alone, most]["Score"])
    assert rows[HANDLED, most]["screened"] == 4
    assert rows[HANDLED, most]["merged"] == 24 - rows[HANDLED, most]["skipped"]
    assert (("skipped", most) in rows) == (rows[HANDLED, most]["skipped"] > 0)
    assert all(row["perplexity"] > 1 for row in found.rows if "perplexity" in row)
    with pytest.raises(ValueError, match="3 copies"):
        OverlapSettings(parties=2, copies=3)


def test_retention(tmp_path: Path) -> None:
    """Both ways are alike in the first round; the edits so far grow, and every round and age has its share."""
    found = ran("retention", tmp_path, parties=2, edits_per_party=1, rounds=3)
    by_round = {(row["method"], row["round"]): row for row in found.rows if "round" in row}
    assert len(by_round) == 3 * 3
    assert by_round[IMMUTABLE, 1]["held"] == by_round[DYNAMIC, 1]["held"]
    assert by_round[DIFFERENCE, 1]["held"] == 0
    ages = [row for row in found.rows if "merged in" in row and row["method"] == DYNAMIC]
    assert [row["merged in"] for row in ages] == [1, 2, 3]
    assert sum(row["held"] for row in ages) / 3 == pytest.approx(by_round[DYNAMIC, 3]["held"])
