"""GPT-2's tokenizer with the tokens alone that some texts need."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from collabedit.experiments.trained.tokenizer import END, gpt2_tokenizer

WORDS = ("ferry", "ferries", "river", "riverbed", "leaving", "leaves", "dawn", "drawn", "Elmoor", "moor", "é")


def sentence(rng: random.Random) -> str:
    """Five of the words."""
    return " ".join(rng.choices(WORDS, k=5))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer in GPT-2's form, learned from some words."""
    root, rng = tmp_path_factory.mktemp("tokenizer"), random.Random(0)
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learned.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    learned.train_from_iterator([sentence(rng) for _ in range(200)], trainer)
    (root / "gpt2-tokenizer").mkdir()
    learned.model.save(str(root / "gpt2-tokenizer"))
    return root


@pytest.mark.parametrize("seed", range(8))
def test_the_texts_are_split_as_by_the_whole(data: Path, seed: int) -> None:
    """Into the same tokens, of a smaller vocabulary whose numbers have no gap; other texts can be read back too."""
    rng = random.Random(seed)
    texts, others = ([f"{lead}{sentence(rng)}" for lead in ("", " ")] for _ in range(2))
    whole, cut = gpt2_tokenizer(data, 64), gpt2_tokenizer(data, 64, texts)
    for text in texts:
        assert cut.tokenize(text) == whole.tokenize(text)
    assert 257 <= len(cut) < len(whole)
    assert sorted(cut.get_vocab().values()) == list(range(len(cut)))
    for text in (*others, "Ω?"):
        assert cut.decode(cut(text).input_ids) == text
