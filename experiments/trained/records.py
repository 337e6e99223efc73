"""What a model is to know, from the data folder: records to be scored first, then further facts; GPT-2's tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from transformers import PreTrainedTokenizerFast

from collabedit.common.edits import Edit
from collabedit.common.errors import UsageError
from collabedit.experiments.data.load import easy_rivals, load

FactsName = Literal["counterfact", "easy"]


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


def easy_records(folder: Path) -> list[Edit]:
    """The Easy sets: the edits, then both sides of each conflict, which are about the same facts. Raises as `load`."""
    return [*load("easy", folder), *(edit for pair in easy_rivals(folder) for edit in pair)]


FACTS: Final[Mapping[FactsName, Facts]] = {
    "counterfact": Facts(
        counterfact_records,
        "CounterFact's and zsRE's true answers. CounterFact is MIT-licensed; zsRE states no licence",
    ),
    "easy": Facts(easy_records, "the Easy sets' true objects. They are MIT-licensed", carriers=True),
}


def gpt2_tokenizer(folder: Path, positions: int) -> PreTrainedTokenizerFast:
    """GPT-2's own, of its two files. Raises UsageError where one is missing."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocab, merges = (folder / "gpt2-tokenizer" / name for name in ("vocab.json", "merges.txt"))
    for file in (vocab, merges):
        text_of(file)
    tokenizer = Tokenizer(models.BPE.from_file(str(vocab), str(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token=end, pad_token=end,
        model_max_length=positions, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def text_of(file: Path) -> str:
    """A file of the data folder. Raises UsageError where it cannot be read."""
    try:
        return file.read_text(encoding="utf-8").rstrip("\n")
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}", mend="give the data folder with --data") from error
