"""Real facts as sentences to learn: CounterFact's with their true objects, zsRE's with their answers."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from collabedit.common.edits import BLANK, Edit

Kind = Literal["edit", "paraphrase", "rephrased", "neighbor", "unrelated", "carrier", "list"]
REPHRASED: Final = 2  # sentences in other words for each fact, by the relation's other prompts


@dataclass(frozen=True)
class Statement:
    """A prompt and what comes after it. subject: (begin, end) in the prompt, None where it is not known.

    owner: number of the record that it belongs to; relation: what makes two answers exchangeable, "" for none.
    """

    prompt: str
    answer: str
    subject: tuple[int, int] | None
    relation: str
    kind: Kind
    owner: int


def statements(edits: Sequence[Edit], seed: int) -> list[Statement]:
    """Everything that the records say is true: each prompt once, in the records' order.

    The edit's prompt, its paraphrases and two more prompts of its relation go on with target_true, and so do the
    neighbours' prompts; unrelated questions with their answers. Records without target_true are left out.
    """
    rng = random.Random(seed)  # noqa: S311 - no secret
    templates = _templates(edits)
    found: dict[tuple[str, str], Statement] = {}
    for owner, edit in enumerate(edits):
        for each in _of_record(edit, owner, templates, rng):
            found.setdefault((each.prompt, each.answer), each)
    return list(found.values())


def _templates(edits: Iterable[Edit]) -> Mapping[str, tuple[str, ...]]:
    """The prompts that occur, by relation."""
    seen: dict[str, dict[str, None]] = defaultdict(dict)
    for edit in edits:
        if edit.relation_id:
            seen[edit.relation_id][edit.prompt] = None
    return {relation: tuple(prompts) for relation, prompts in seen.items()}


def _of_record(
    edit: Edit, owner: int, templates: Mapping[str, tuple[str, ...]], rng: random.Random
) -> Iterator[Statement]:
    if edit.target_true is None:
        return
    relation, true = edit.relation_id or "", edit.target_true
    begin = edit.prompt.index(BLANK)
    yield Statement(edit.text, true, (begin, begin + len(edit.subject)), relation, "edit", owner)
    for prompt in edit.paraphrase_prompts:
        yield Statement(prompt, true, _place(prompt, edit.subject), relation, "paraphrase", owner)
    others = [each for each in templates.get(relation, ()) if each != edit.prompt]
    for template in rng.sample(others, min(REPHRASED, len(others))):
        begin = template.index(BLANK)
        place = (begin, begin + len(edit.subject))
        yield Statement(template.replace(BLANK, edit.subject), true, place, relation, "rephrased", owner)
    for prompt in edit.neighborhood_prompts:
        yield Statement(prompt, true, _by_template(prompt, templates.get(relation, ())), relation, "neighbor", owner)
    for question in edit.unrelated:
        yield Statement(question.prompt, question.answer, None, "", "unrelated", owner)


def _place(prompt: str, subject: str) -> tuple[int, int] | None:
    begin = prompt.find(subject)
    return None if begin < 0 else (begin, begin + len(subject))


def _by_template(prompt: str, templates: Iterable[str]) -> tuple[int, int] | None:
    """Where the subject stands in a prompt of a template that is known; of several, the one that says most."""
    for template in sorted(templates, key=len, reverse=True):
        before, _, after = template.partition(BLANK)
        if prompt.startswith(before) and prompt.endswith(after) and len(prompt) > len(before) + len(after):
            return len(before), len(prompt) - len(after)
    return None
