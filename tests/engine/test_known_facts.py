"""Facts to trace: ROME's known_1000.json, JSON lines, and edits whose true object is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from collabedit.client.known_facts import parse_facts, read_facts
from collabedit.common.errors import BadEditsError

KNOWN = {
    "known_id": 7, "subject": "Vinson Massif", "attribute": "Antarctica", "template": "{} is located in the continent",
    "prediction": " of Antarctica. It is the", "prompt": "Vinson Massif is located in the continent of",
    "relation_id": "P30",
}  # fmt: skip
COUNTERFACT = {
    "case_id": 3,
    "requested_rewrite": {
        "prompt": "The capital of {} is", "subject": "Norway", "target_new": {"str": "Paris"},
        "target_true": {"str": "Oslo"},
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("record", "prompt", "answer"),
    [
        (KNOWN, "{} is located in the continent of", "Antarctica"),
        ({**KNOWN, "prompt": None}, "{} is located in the continent", "Antarctica"),
        ({"prompt": "The capital of {} is", "subject": "Norway", "attribute": " Oslo"}, "The capital of {} is", "Oslo"),
        (
            {"template": "{} and", "prompt": "Spain and Spain", "subject": "Spain", "attribute": "x"},
            "{} and Spain",
            "x",
        ),
        (COUNTERFACT, "The capital of {} is", "Oslo"),
        ({"prompt": "{} is", "subject": "a", "target_new": "b", "target_true": "c"}, "{} is", "c"),
        ({"src": "Who is Ann?", "subject": "Ann", "alt": "b", "answers": ["c"]}, "Who is {}?", "c"),
    ],
)
def test_records_that_name_a_fact(record: dict[str, Any], prompt: str, answer: str) -> None:
    """The subject's place is the template's where the prompt goes on from it; the object is the true one."""
    (fact,) = parse_facts(json.dumps(record)).edits
    assert (fact.prompt, fact.target_new) == (prompt, answer)


@pytest.mark.parametrize("indent", [None, 0, 2])
def test_an_array_is_read_as_its_lines_are(indent: int | None) -> None:
    """ROME's file is one JSON array; a bad entry is named by the line that it begins on."""
    records = [KNOWN, {"subject": "Norway", "prompt": "{} is"}, COUNTERFACT, 5]
    text = json.dumps(records, indent=indent)
    parsed = parse_facts(text)
    assert [fact.subject for fact in parsed.edits] == ["Vinson Massif", "Norway"]
    assert [problem.what for problem in parsed.problems] == ["no attribute", "not a JSON object"]
    assert all(problem.mend for problem in parsed.problems[:1])
    by_line = text.split("\n")
    if indent is not None:
        assert by_line[parsed.problems[1].line - 1].strip() == "5"
        assert by_line[parsed.problems[0].line].strip().startswith('"subject": "Norway"')
    alone = parse_facts("\n".join(json.dumps(record) for record in records))
    assert alone.edits == parsed.edits
    assert [problem.line for problem in alone.problems] == [2, 4]


@pytest.mark.parametrize(
    ("record", "word"),
    [
        ({**KNOWN, "attribute": " "}, "attribute is blank"),
        ({**KNOWN, "attribute": None}, "attribute is blank"),
        ({**KNOWN, "prompt": "It lies in", "template": "no blank"}, "not in the prompt"),
        ({"subject": "a", "attribute": "b"}, "prompt"),
        ({"prompt": "{} is", "subject": "a", "target_new": "b"}, "no target_true"),
        ("text", "not a JSON object"),
    ],
)
def test_records_that_name_none(record: Any, word: str) -> None:
    """What is missing is said."""
    parsed = parse_facts(json.dumps(record))
    assert not parsed.edits
    assert word in parsed.problems[0].what


@pytest.mark.parametrize(("text", "line"), [('[{"a": 1},\n {"b"}]', 2), ("[", 1), ('[{"a": 1}', 1), ("[\n\nnull", 3)])
def test_an_array_that_json_does_not_allow(tmp_path: Path, text: str, line: int) -> None:
    """File and line are named."""
    file = tmp_path / "facts.json"
    file.write_text(text)
    with pytest.raises(BadEditsError, match=f"facts.json:{line}: not JSON"):
        read_facts(file)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    """Told with the mend, as for edits."""
    with pytest.raises(BadEditsError, match=r"gone\.json: No such file"):
        read_facts(tmp_path / "gone.json")
    (tmp_path / "latin.json").write_bytes(b"[\xe9]")
    with pytest.raises(BadEditsError, match=r"latin\.json: not UTF-8 at byte 1"):
        read_facts(tmp_path / "latin.json")


def test_romes_own_file() -> None:
    """Every record of known_1000.json is read."""
    file = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "knowns" / "known_1000.json"
    if not file.is_file():
        pytest.skip("no known_1000.json beside the checkout (shared/data/knowns)")
    parsed = read_facts(file)
    assert (len(parsed.edits), parsed.problems) == (1209, ())
    assert parsed.edits[0].text == "Vinson Massif is located in the continent of"
