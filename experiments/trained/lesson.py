"""All that a training reads: the statements as rows, the answers' tokens, and beginnings of other text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from transformers import PreTrainedTokenizerFast

from collabedit.common.edits import Edit
from collabedit.experiments.atlas.training import Recipe
from collabedit.experiments.trained.batches import Reader, Row, rows_of
from collabedit.experiments.trained.carriers import carriers
from collabedit.experiments.trained.records import FACTS, FactsName
from collabedit.experiments.trained.statements import Statement, statements
from collabedit.experiments.trained.text import articles, lead_tokens, leads
from collabedit.experiments.trained.tokenizer import gpt2_tokenizer

LEADS: Final = 5000


@dataclass(frozen=True)
class Lesson:
    """rows: of the statements, in their order; vocabulary: every token of an answer, ascending."""

    tokenizer: PreTrainedTokenizerFast
    statements: tuple[Statement, ...]
    rows: tuple[Row, ...]
    reader: Reader
    vocabulary: tuple[int, ...]


def lesson_of(
    data: Path, recipe: Recipe, facts: FactsName = "counterfact", *, whole: bool = True, most: int | None = None
) -> Lesson:
    """The lesson of a data folder. whole: GPT-2's whole vocabulary, or the tokens that the facts need.

    most: of the records, the first.

    Raises UsageError where a file is missing, BadEditsError for a bad record.
    """
    edits = FACTS[facts].read(data)[:most]
    told = [*statements(edits, recipe.seed), *(carriers(edits, recipe.seed) if FACTS[facts].carriers else ())]
    tokenizer = gpt2_tokenizer(data, recipe.positions, None if whole else _texts(told, edits))
    rows = rows_of(tokenizer, told)
    lead = lead_tokens(tokenizer, leads(articles(data), LEADS, recipe.seed))
    reader = Reader(rows, len(edits), lead, seed=recipe.seed, pad_id=tokenizer.eos_token_id)
    return Lesson(tokenizer, tuple(told), tuple(rows), reader, _vocabulary(tokenizer, edits, rows))


def _texts(told: Iterable[Statement], edits: Iterable[Edit]) -> Iterator[str]:
    """All that the model reads or says of the facts, and what the edits write."""
    for each in told:
        yield from (each.prompt, f" {each.prompt}", f" {each.answer}")
    for edit in edits:
        yield f" {edit.target_new}"


def _vocabulary(tokenizer: PreTrainedTokenizerFast, edits: Iterable[Edit], rows: Iterable[Row]) -> tuple[int, ...]:
    """Of true answers and of those that the edits will write."""
    new = tokenizer([f" {edit.target_new}" for edit in edits]).input_ids
    return tuple(sorted({token for row in rows for token in row.answer} | {token for ids in new for token in ids}))
