"""The data sets by name: the real files where they are, and small ones of the same form."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from collabedit.client.edit_file import read_edits
from collabedit.common.errors import BadEditsError, BadFileError, UsageError
from collabedit.experiments.data import NAMES, Name, deal, easy_rivals, load


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("counterfact", 4749), ("multi-counterfact", 4710), ("counterfact-facts", 12_786), ("zsre", 830),
        ("zsre-train", 1000), ("zsre-true", 10_000), ("easy", 2500), ("easy-conflict", 746), ("known", 1209),
    ],
)  # fmt: skip
def test_the_real_sets_are_read_whole(real: Path, name: Name, count: int) -> None:
    """Every record counts, and has what its set is for."""
    edits = load(name, real)
    assert len(edits) == count
    assert all(edit.paraphrase_prompts for edit in edits) == (name not in ("counterfact-facts", "known"))
    assert all(edit.neighborhood_prompts for edit in edits) == ("counterfact" in name)
    assert all(edit.target_true is not None for edit in edits) == (name not in ("known", "zsre-true"))
    asked = [question for edit in edits for question in edit.unrelated]
    assert len(asked) == (count if name.startswith("zsre") else 0)
    assert all(each.prompt.startswith("nq question: ") and each.prompt.count("?") == 1 for each in asked[:100])
    assert not [each for each in asked if each.prompt.endswith("??")]
    assert any(edit.generation_prompts for edit in edits) == ("counterfact" in name and "facts" not in name)


def test_the_real_files_of_edits_are_read_as_they_are(real: Path) -> None:
    """What `--edits` is given may be any of them; the one whose answers are all true is refused, record by record."""
    held = ("counterfact/counterfact.jsonl", "zsre/zsre_eval.json", "zsre/zsre_train_1000_full.json", "easy/easy.json")
    for name in (*held, "easy/easy_conflict.json"):
        parsed = read_edits(real / name)
        assert parsed.edits
        assert not parsed.problems
        assert len({edit.id for edit in parsed.edits}) == len(parsed.edits)
    assert not read_edits(real / "zsre/zsre_train_10000.json").edits


def test_the_real_sets_are_dealt(real: Path) -> None:
    """The paper's deal of multi-CounterFact, with every second edit contested, each way."""
    edits = load("multi-counterfact", real)
    for by in ("iid", "relation", "subject"):
        dealt = deal(edits, 7, 500, by, overlap=0.2, conflict=0.3)
        assert (len(dealt.overlaps), len(dealt.conflicts)) == (350, 525)
        assert Counter(map(len, dealt.parties)) == {500: 7}
    assert all(mine.target_new != theirs.target_new for mine, theirs in easy_rivals(real))


def counterfact(case: int, subject: str, new: str, relation: str = "P1") -> dict[str, Any]:
    """A record of CounterFact's."""
    rewrite = {"prompt": "{} is", "subject": subject, "relation_id": relation, "target_new": {"str": new}}
    return {"case_id": case, "requested_rewrite": {**rewrite, "target_true": {"str": "old"}}}


def easy(subject: str, new: Any, conflicting: str) -> dict[str, Any]:
    """A record of the Easy sets'."""
    edit = {
        "relation": {"id": "P1", "prompt": "The genre of {} is", "query": "What is the genre of {}?"},
        "subject": {"label": subject}, "object": {"label": "old"}, "new_object": new,
        "conflict_object": {"label": conflicting},
    }  # fmt: skip
    return {"edit": edit, "true_objects": [{"label": "old"}]}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder of small files of the same names and forms."""
    records = [
        counterfact(0, "Ann", "red"), counterfact(1, "Ann", "blue"), counterfact(2, "Ann", "Red "),
        counterfact(3, "Ann", "blue", "P2"), counterfact(4, "Bob", "blue"),
    ]  # fmt: skip
    asked = {"subject": "Ann", "src": "Who is Ann?", "rephrase": "Say who Ann is", "alt": "she"}
    files: dict[str, Any] = {
        "easy/easy.json": [easy("Ann", {"label": "song"}, "poem")],
        "easy/easy_conflict.json": [easy("Ann", "song", "poem"), easy("Bob", "song", "Song"), easy("Cy", "a", "a")],
        "easy/round_prompts.json": {"P1": ["{} belongs to", "The genre of {} is"]},
        "zsre/zsre_train_10000.json": [{**asked, "loc": "nq question: who?", "loc_ans": "he"}],
        "knowns/known_1000.json": [{"subject": "Ann", "prompt": "Ann is", "attribute": "she"}],
    }
    for name in ("counterfact", *(Path(file).parent.name for file in files)):
        (tmp_path / name).mkdir(exist_ok=True)
    for name, value in files.items():
        (tmp_path / name).write_text(json.dumps(value))
    (tmp_path / "counterfact/counterfact.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n")
    return tmp_path


def test_contradictions_are_left_out(small: Path) -> None:
    """Of one subject's different objects in one relation the first stays; the same one twice is no contradiction."""
    assert [edit.id for edit in load("multi-counterfact", small)] == ["0", "2", "3", "4"]
    assert len(load("counterfact", small)) == 5


def test_easy_records_have_their_relations_templates(small: Path) -> None:
    """The question first, then the templates; the prompt itself is no paraphrase."""
    (edit,) = load("easy", small)
    assert edit.paraphrase_prompts == ("What is the genre of Ann?", "Ann belongs to")
    assert (edit.target_new, edit.related_targets) == ("song", ("old",))


def test_conflicts_that_are_none_are_left_out(small: Path) -> None:
    """A conflicting object that is the new one, in other letters too, is no conflict."""
    ((mine, theirs),) = easy_rivals(small)
    assert (mine.target_new, theirs.target_new) == ("song", "poem")
    assert load("easy-conflict", small) == (mine,)


def test_true_answers_are_no_new_targets(small: Path) -> None:
    """zsRE's large training file says what is true: a fact to know, and nothing to edit."""
    (known,) = load("zsre-true", small)
    assert (known.target_new, known.target_true, known.unrelated[0].prompt) == ("she", None, "nq question: who?")
    assert load("known", small)[0].target_new == "she"


def test_what_is_wrong_is_named(small: Path) -> None:
    """The name, the file or the record; with the mend."""
    with pytest.raises(UsageError, match='no data set "mcf"') as refused:
        load("mcf", small)  # type: ignore[arg-type]
    assert all(name in refused.value.mend for name in NAMES)
    with pytest.raises(UsageError, match=r"zsre_eval\.json: no such file"):
        load("zsre", small)
    with (small / "counterfact/counterfact.jsonl").open("a") as file:
        file.write('{"requested_rewrite": 5}\n')
    with pytest.raises(BadEditsError, match=r"counterfact\.jsonl:6: requested_rewrite is no object"):
        load("counterfact", small)
    (small / "easy/round_prompts.json").write_text("{")
    with pytest.raises(BadFileError, match=r"round_prompts\.json:1: not JSON"):
        load("easy", small)
