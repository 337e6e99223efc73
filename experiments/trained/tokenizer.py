"""GPT-2's tokenizer from the data folder, whole or with the tokens alone that some texts need."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from transformers import PreTrainedTokenizerFast

from collabedit.experiments.trained.records import text_of

END: Final = "<|endoftext|>"
Merge = tuple[str, str]


def gpt2_tokenizer(folder: Path, positions: int, texts: Iterable[str] | None = None) -> PreTrainedTokenizerFast:
    """GPT-2's own, of its two files. Raises UsageError where one is missing.

    texts: tokens that neither these have nor the bytes and what they are merged from are left out, and the others
    numbered anew. The texts are split as by the whole tokenizer, and all other texts into smaller pieces.
    """
    vocabulary = json.loads(text_of(folder / "gpt2-tokenizer/vocab.json"))
    lines = text_of(folder / "gpt2-tokenizer/merges.txt").split("\n")
    merges = [(one, other) for one, _, other in (line.partition(" ") for line in lines[1:] if line)]
    whole = _of(vocabulary, merges, positions)
    if texts is None:
        return whole
    ids = {token for each in whole(list(texts)).input_ids for token in each}
    needed = _with_parts(whole.convert_ids_to_tokens(sorted(ids)), merges)
    kept = [token for token in vocabulary if token in needed or len(token) == 1 or token == END]
    chosen = [merge for merge in merges if "".join(merge) in needed]
    return _of({token: number for number, token in enumerate(kept)}, chosen, positions)


def _with_parts(tokens: Sequence[str], merges: Sequence[Merge]) -> set[str]:
    """The tokens, those that they are merged from, and so on."""
    parts, found, waiting = {"".join(merge): merge for merge in merges}, set[str](), list(tokens)
    while waiting:
        token = waiting.pop()
        if token not in found:
            found.add(token)
            waiting += parts.get(token, ())
    return found


def _of(vocabulary: Mapping[str, int], merges: Sequence[Merge], positions: int) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(dict(vocabulary), list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, unk_token=END, pad_token=END,
        model_max_length=positions, clean_up_tokenization_spaces=False,
    )  # fmt: skip
