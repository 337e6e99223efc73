"""What a model is to know, from the data folder: records to be scored first, then further facts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from collabedit.common.edits import Edit
from collabedit.common.errors import UsageError
from collabedit.experiments.data.load import drawn_rivals, load

FactsName = Literal["counterfact", "easy", "easy-conflict"]


@dataclass(frozen=True)
class Facts:
    """What a model is taught. read: the records of a data folder; said: what they are and their licence, for the card.

    carriers: whether what the edits write is told of made-up subjects too, see `carriers`.
    """

    read: Callable[[Path], list[Edit]]
    said: str
    carriers: bool = False


def counterfact_records(folder: Path) -> list[Edit]:
    """CounterFact with paraphrases, its further facts, and zsRE's evaluation records. Raises as `load`."""
    return [*load("counterfact", folder), *load("counterfact-facts", folder), *load("zsre", folder)]


def conflicting_records(folder: Path) -> list[Edit]:
    """Both sides of each conflict of the Easy data, as `table4` draws them with seed 0. Raises as `load`."""
    return [edit for pair in drawn_rivals(folder) for edit in pair]


def easy_records(folder: Path) -> list[Edit]:
    """The Easy edits, then the conflicts, which are about the same facts. Raises as `load`."""
    return [*load("easy", folder), *conflicting_records(folder)]


FACTS: Final[Mapping[FactsName, Facts]] = {
    "counterfact": Facts(
        counterfact_records,
        "CounterFact's and zsRE's true answers. CounterFact is MIT-licensed; zsRE states no licence",
    ),
    "easy": Facts(easy_records, "the Easy edits' true objects. They are MIT-licensed", carriers=True),
    "easy-conflict": Facts(
        conflicting_records, "the true objects of the Easy conflicts. They are MIT-licensed", carriers=True
    ),
}


def text_of(file: Path) -> str:
    """A file of the data folder. Raises UsageError where it cannot be read."""
    try:
        return file.read_text(encoding="utf-8").rstrip("\n")
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}", mend="give the data folder with --data") from error
