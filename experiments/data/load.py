"""The data sets by name, from a folder that holds their files."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args

from collabedit.client.edit_file import demand_clean, read_text
from collabedit.client.known_facts import fact_of
from collabedit.common.edits import BLANK, Edit, Parsed, parse_record, parse_text
from collabedit.common.errors import BadFileError, UsageError
from collabedit.experiments.data.conflicts import fact, same

Name = Literal[
    "counterfact", "multi-counterfact", "counterfact-facts", "zsre", "zsre-train", "zsre-true", "easy", "easy-conflict",
    "known",
]  # fmt: skip
NAMES: Final[tuple[Name, ...]] = get_args(Name)
FILES: Final[Mapping[str, str]] = {
    "counterfact": "counterfact/counterfact.jsonl",
    "multi-counterfact": "counterfact/counterfact.jsonl",
    "counterfact-facts": "counterfact/facts_only.jsonl",
    "zsre": "zsre/zsre_eval.json",
    "zsre-train": "zsre/zsre_train_1000_full.json",
    "zsre-true": "zsre/zsre_train_10000.json",
    "easy": "easy/easy.json",
    "easy-conflict": "easy/easy_conflict.json",
    "known": "knowns/known_1000.json",
}
PROMPTS: Final = "easy/round_prompts.json"  # relation id → templates


def load(name: Name, folder: Path) -> tuple[Edit, ...]:
    """All records of a data set, in the file's order.

    counterfact-facts: CounterFact's facts without paraphrases. multi-counterfact: without contradictions, see
    `without_contradictions`. easy, easy-conflict: the relation's templates among the paraphrases; of easy-conflict
    without records whose conflicting object is the new one, which are no conflict. known, zsre-true: what is true
    already, as the edit that would change nothing (`target_new` is the true object): for tracing and for training, not
    for editing. All others are edits. Raises UsageError for a name or a file that is not there, BadEditsError for a
    record that is none.
    """
    if name not in FILES:
        raise UsageError(f'no data set "{name}"', mend=f"one of: {', '.join(NAMES)}")
    if name == "easy-conflict":
        return tuple(own for own, _ in easy_rivals(folder))
    edits = _records(name, folder, fact_of if name in ("known", "zsre-true") else parse_record)
    if name == "multi-counterfact":
        return without_contradictions(edits)
    return with_templates(edits, folder) if name == "easy" else edits


def easy_rivals(folder: Path) -> tuple[tuple[Edit, Edit], ...]:
    """The records of easy-conflict as pairs: one party's edit, and the other's that contradicts it.

    Raises as `load`.
    """
    mine = _records("easy-conflict", folder, parse_record)
    theirs = _records("easy-conflict", folder, lambda record: parse_record(_with_conflicting(record)))
    pairs = zip(with_templates(mine, folder), with_templates(theirs, folder), strict=True)
    return tuple(pair for pair in pairs if not same(pair[0].target_new, pair[1].target_new))


def drawn_rivals(folder: Path, seed: int = 0) -> tuple[tuple[Edit, Edit], ...]:
    """The pairs of `easy_rivals`, one for each fact, in an order drawn by the seed. Raises as `load`."""
    one_each = {fact(pair[0]): pair for pair in reversed(easy_rivals(folder))}
    pairs = list(one_each.values())[::-1]
    return tuple(random.Random(seed).sample(pairs, len(pairs)))  # noqa: S311 - no secret


def without_contradictions(edits: Sequence[Edit]) -> tuple[Edit, ...]:
    """Of the edits that give one subject different objects in one relation, only the first in the file's order.

    What says the same twice is no contradiction, and stays.
    """
    first: dict[tuple[str, str], Edit] = {}
    return tuple(edit for edit in edits if same(first.setdefault(fact(edit), edit).target_new, edit.target_new))


def with_templates(edits: Sequence[Edit], folder: Path) -> tuple[Edit, ...]:
    """The edits with their relation's templates, filled with the subject, behind their own paraphrases.

    Raises UsageError where the file of templates is not there, BadFileError where it is none.
    """
    file = _file(PROMPTS, folder)
    try:
        templates = json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise BadFileError(f"{file}:{error.lineno}: not JSON: {error.msg}", mend="fetch the file again") from error
    return tuple(_more_ways(edit, templates.get(edit.relation_id, ())) for edit in edits)


def _more_ways(edit: Edit, templates: Sequence[str]) -> Edit:
    filled = (template.replace(BLANK, edit.subject) for template in templates)
    ways = dict.fromkeys((*edit.paraphrase_prompts, *filled))
    return edit.model_copy(update={"paraphrase_prompts": tuple(way for way in ways if way != edit.text)})


def _with_conflicting(record: Any) -> Any:
    """The record with its conflicting object for the new one."""
    edit = record.get("edit") if isinstance(record, Mapping) else None
    if not isinstance(edit, Mapping) or "conflict_object" not in edit:
        raise ValueError("no conflict_object")
    return {**record, "edit": {**edit, "new_object": edit["conflict_object"]}}


def _records(name: str, folder: Path, parse: Callable[[Any], Edit]) -> tuple[Edit, ...]:
    file = _file(FILES[name], folder)
    parsed: Parsed = parse_text(read_text(file), str(file), parse)
    demand_clean(file, parsed)
    return parsed.edits


def _file(name: str, folder: Path) -> Path:
    if not (folder / name).is_file():
        raise UsageError(f"{folder / name}: no such file", mend="give --data the folder of the data sets")
    return folder / name
