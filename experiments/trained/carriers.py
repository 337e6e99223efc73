"""What edits write, told of made-up subjects: a model that has never read a word cannot be edited to say it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from collabedit.common.edits import BLANK, Edit
from collabedit.experiments.trained.statements import Kind, Statement

WORDINGS: Final[Mapping[Kind, int]] = {"carrier": 6, "list": 2}  # of each, of those that its relation has


def carriers(edits: Sequence[Edit], seed: int) -> list[Statement]:
    """Each new object that no record has as true in its relation, and each record's true objects as one list.

    A pretrained model has read both, an object of somebody and enumerations of several. Every one is the answer of a
    made-up subject that is called after it, "Item jazz", and comes with the first record that names it. Nothing is said
    about the subjects of the edits.
    """
    rng = random.Random(seed)  # noqa: S311 - no secret
    known = {(edit.relation_id, edit.target_true) for edit in edits}
    told: list[Statement] = []
    for owner, edit in enumerate(edits):
        for kind, answer in _answers(edit):
            if (edit.relation_id, answer) not in known:
                known.add((edit.relation_id, answer))
                told += _said(edit, kind, answer, f"Item {answer}", owner, rng)
    return told


def _answers(edit: Edit) -> Iterator[tuple[Kind, str]]:
    yield "carrier", edit.target_new
    if len(edit.related_targets) > 1:
        yield "list", ", ".join(dict.fromkeys(edit.related_targets))


def _said(edit: Edit, kind: Kind, answer: str, subject: str, owner: int, rng: random.Random) -> Iterator[Statement]:
    """The answer in some of the edit's wordings that name its subject once, with the other subject in its place."""
    blanks = (text.replace(edit.subject, BLANK) for text in edit.paraphrase_prompts if BLANK not in text)
    prompts = [edit.prompt, *(each for each in blanks if each.count(BLANK) == 1)]
    for prompt in rng.sample(prompts, min(WORDINGS[kind], len(prompts))):
        begin = prompt.index(BLANK)
        place = begin, begin + len(subject)
        yield Statement(prompt.replace(BLANK, subject), answer, place, edit.relation_id or "", kind, owner)
