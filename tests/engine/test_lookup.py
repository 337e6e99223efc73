"""The subject's last token and the target's tokens, by character offsets."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from families import TOKENIZERS, save_tokenizer

from collabedit.client.loading import LoadedModel, load_model
from collabedit.client.lookup import (
    Row,
    answer_row,
    drift_row,
    fill,
    join,
    key_rows,
    rewriting_rows,
    subject_token,
    tokenise,
)
from collabedit.client.passes import pad
from collabedit.common.edits import Edit
from collabedit.common.errors import BadEditsError, UsageError
from collabedit.common.model_folder import ModelFolder

CASES = {
    "start": ("{}", "{} plays the", "Toko Yasuda"),
    "middle": ("{}", "The mother tongue of {} is", "Danielle Darrieux"),
    "end": ("{}", "The capital of {}", "Norway"),
    "after a template": ("The river is long. {}", "The capital of {} is", "Norway"),
    "repeated before": ("{}", "Spain, and I, and {} is", "Spain"),
    "repeated in the template": ("Spain is long. {}", "The capital of {} is", "Spain"),
    "repeated after": ("{}", "The capital of {}, of Spain, is", "Spain"),
    "not latin": ("{}", "In {}, the language is", "日本語"),
    "not latin, at the start": ("{}", "{}は", "東京都"),
    "right to left": ("{}", "The mother tongue of {} is", "نجيب محفوظ"),
    "right to left, in its own words": ("{}", "عاصمة {} هي", "النرويج"),
    "combining marks": ("{}", "The capital of {} is", "Mu\u0308nchen-A\u030a"),
    "combining marks at the end": ("{}", "The capital of {}", "Se\u0301ne\u0301"),
    "joined emoji": ("{}", "I like {} and you", "👩‍👩‍👧"),
    "one letter": ("{}", "I walked with {}, long", "Q"),
    "accents": ("{}", "{} is the capital of", "München-Überlingen"),
    "emoji at the end": ("{}", "I like {}", "🦜🦜"),
    "spans the end": ("{}", "In {}way you sang", "Nor"),
    "spans both ends": ("{}", "In N{}y you sang", "orwa"),
    "ends with a space": ("{}", "The capital of {}is", "Norway "),
}


def gpt2_with(tiny: LoadedModel, folder: Path) -> LoadedModel:
    """The tiny model's record with GPT-2's tokenizer."""
    from transformers import GPT2TokenizerFast

    return LoadedModel(tiny.model, GPT2TokenizerFast.from_pretrained(folder), tiny.architecture, tiny.folder)


def with_tokenizer(tiny: LoadedModel, folder: Path, kind: str, **options: Any) -> LoadedModel:
    """The tiny model's record with a tokenizer of one of the kinds, saved and loaded."""
    from transformers import AutoTokenizer

    save_tokenizer(TOKENIZERS[kind](), folder, **options)
    return LoadedModel(tiny.model, AutoTokenizer.from_pretrained(folder), tiny.architecture, tiny.folder)


@pytest.fixture(scope="module", params=["gpt2", *TOKENIZERS])
def reader(
    request: pytest.FixtureRequest, folder: ModelFolder, tmp_path_factory: pytest.TempPathFactory
) -> LoadedModel:
    """GPT-2's own tokenizer, then one of each kind."""
    if request.param == "gpt2":
        return gpt2_with(load_model(folder), request.getfixturevalue("gpt2_tokenizer"))
    return with_tokenizer(load_model(folder), tmp_path_factory.mktemp("tokenizer"), request.param)


def spelt(loaded: LoadedModel, ids: Sequence[int]) -> str:
    """What tokens spell; two texts are the same here where only case or the form of their letters differs."""
    return alike(loaded.tokenizer.decode(list(ids), skip_special_tokens=True))


def alike(text: str) -> str:
    """A text without what some tokenizers take away."""
    return unicodedata.normalize("NFKC", text).lower().strip()


@pytest.mark.parametrize("case", CASES)
def test_the_subjects_last_token_ends_it_where_the_blank_stands(reader: LoadedModel, case: str) -> None:
    """The tokens up to the one found spell the subject out in its place; those before it do not yet."""
    template, prompt, subject = CASES[case]
    filled = fill(template, Edit(prompt=prompt, subject=subject, target_new="x"))
    assert filled.start == template.index("{}") + prompt.index("{}")
    tokens = tokenise(reader, [filled.text])[0]
    found = subject_token(tokens, filled)
    whole = alike(filled.text[: filled.end])
    assert spelt(reader, tokens.ids[: found + 1]).startswith(whole)
    assert not spelt(reader, tokens.ids[:found]).startswith(whole)


def test_a_token_that_spans_the_boundary_is_the_subjects(gpt2_tokenizer: Path, tiny: LoadedModel) -> None:
    """In GPT-2's vocabulary " Norway" is one token: it holds the subject "Nor"."""
    reader = gpt2_with(tiny, gpt2_tokenizer)
    row = key_rows(reader, Edit(prompt="In {}way", subject="Nor", target_new="x"), (("{}",),))[0]
    assert [reader.tokenizer.decode([each]) for each in row.ids] == ["In", " Norway"]
    assert row.subject == 1


def test_a_token_in_front_of_every_text_is_counted(tiny: LoadedModel) -> None:
    """With a tokenizer that begins each text with a special token the subject's token is one further."""
    from tokenizers.processors import TemplateProcessing

    edit = Edit(prompt="The capital of {} is", subject="Norway", target_new="Oslo")
    plain = rewriting_rows(tiny, edit, (("{}",),))[0]
    tiny.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    begun = rewriting_rows(tiny, edit, (("{}",),))[0]
    assert begun.ids == (0, *plain.ids)
    assert (begun.subject, begun.labels) == (plain.subject + 1, plain.labels)


@pytest.mark.parametrize(
    ("prompt", "target", "text"),
    [("is", "Oslo", "is Oslo"), ("is ", "Oslo", "is Oslo"), ("is", " Oslo", "is Oslo"), ("", "Oslo", "Oslo")],
)
def test_the_target_gets_one_space(prompt: str, target: str, text: str) -> None:
    """A space stands between prompt and target exactly once."""
    assert join(prompt, target) == text


@pytest.mark.parametrize("target", ["river of Madrid", "日本", "Oslo", "🦜", "Ω"])
@pytest.mark.parametrize("prompt", ["The mother tongue of {} is", "{}", "In {},"])
def test_a_row_predicts_the_whole_target(reader: LoadedModel, prompt: str, target: str) -> None:
    """A row and its last label are the tokens of prompt and target; the labels spell the target and nothing else."""
    edit = Edit(prompt=prompt, subject="Leo Tolstoy", target_new=target)
    templates = (("{}",), ("I sang. {}",))
    texts = [f"{text}{edit.text} {target}" for text in ("", "I sang. ")]
    for row, text in zip(rewriting_rows(reader, edit, templates), texts, strict=True):
        whole = tokenise(reader, [text])[0].ids
        assert (*row.ids, row.labels[-1]) == whole
        assert spelt(reader, row.labels) == alike(target)
        assert spelt(reader, whole[: -len(row.labels)]) == alike(text[: -len(target)])


def test_the_rows_of_keys_and_of_the_kl_term_stop_at_the_subject(reader: LoadedModel) -> None:
    """Nothing after the subject's last token is run where it has no bearing."""
    edit = Edit(prompt="The mother tongue of {} is", subject="Leo Tolstoy", target_new="French")
    for row in (*key_rows(reader, edit, (("{}", "I sang. {}"),)), drift_row(reader, edit)):
        assert row.subject == len(row.ids) - 1
        assert spelt(reader, row.ids).endswith("leo tolstoy")


EDIT = Edit(prompt="The capital of {} is", subject="日本", target_new="Leo Tolstoy")


def all_rows(loaded: LoadedModel) -> list[Row]:
    """The rows of every kind of one edit."""
    templates = (("{}",), ("I sang. {}",))
    return [*rewriting_rows(loaded, EDIT, templates), *key_rows(loaded, EDIT, templates), drift_row(loaded, EDIT)]


def test_what_a_tokenizer_puts_behind_a_text_is_in_no_row(tiny: LoadedModel, tmp_path: Path) -> None:
    """With an end of text behind each text the rows and targets are those without it."""
    plain = with_tokenizer(tiny, tmp_path / "plain", "metaspace")
    ended = with_tokenizer(tiny, tmp_path / "ended", "metaspace, ended")
    assert ended.tokenizer("is")["input_ids"][-1] == ended.tokenizer.eos_token_id
    assert all_rows(ended) == all_rows(plain)


class LeavingSpacesOut:
    """A tokenizer that says of no token that the space before its word is its own."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __call__(self, texts: list[str], **options: Any) -> Any:
        coded = self._tokenizer(texts, **options)
        coded["offset_mapping"] = [
            [(begin + (text[begin:end][:1] == " "), end) for begin, end in spans]
            for text, spans in zip(texts, coded["offset_mapping"], strict=True)
        ]
        return coded


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_it_does_not_matter_whose_the_spaces_are(tiny: LoadedModel, tmp_path: Path, kind: str) -> None:
    """Rows are the same whether offsets have the space before a word in its token or leave it out."""
    with_spaces = with_tokenizer(tiny, tmp_path, kind)
    assert all_rows(replace(with_spaces, tokenizer=LeavingSpacesOut(with_spaces.tokenizer))) == all_rows(with_spaces)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_tokenizers_own_padding_and_truncation_do_not_matter(tiny: LoadedModel, tmp_path: Path, side: str) -> None:
    """Rows are the same for tokenizers that pad on the left or on the right, and that cut texts short."""
    plain = with_tokenizer(tiny, tmp_path / "plain", "begun")
    padding = with_tokenizer(tiny, tmp_path / side, "begun", padding_side=side, pad_token="</s>", model_max_length=4)
    padding.tokenizer.backend_tokenizer.enable_padding(direction=side, length=40)
    padding.tokenizer.backend_tokenizer.enable_truncation(3)
    assert all_rows(padding) == all_rows(plain)


def test_letters_that_a_tokenizer_drops_are_nobodys(tiny: LoadedModel, tmp_path: Path) -> None:
    """A subject that ends with a character of which no token is left ends with the token before it."""
    from tokenizers import normalizers

    reader = with_tokenizer(tiny, tmp_path, "begun")
    reader.tokenizer.backend_tokenizer.normalizer = normalizers.Replace("\u200b", "")
    row = key_rows(reader, Edit(prompt="The capital of {} is", subject="Norway\u200b", target_new="x"), (("{}",),))[0]
    assert spelt(reader, row.ids) == "the capital of norway"
    with pytest.raises(BadEditsError, match="no token"):
        key_rows(reader, Edit(prompt="The capital of {} is", subject="\u200b\u200b", target_new="x"), (("{}",),))


@pytest.mark.wheel
def test_rows_are_padded_left_and_right_onto_one_column(tiny: LoadedModel, edits: tuple[Edit, ...]) -> None:
    """Every row's subject token stands on the same column, with the positions it has without padding."""
    rows = [row for edit in edits for row in rewriting_rows(tiny, edit, (("{}", "I sang with you. {}"),))]
    padded = pad(rows, torch.device("cpu"))
    assert (padded.mask[:, 0] == 0).any()
    assert (padded.mask[:, -1] == 0).any()
    for index, row in enumerate(rows):
        there = padded.mask[index].bool()
        assert padded.ids[index][there].tolist() == list(row.ids)
        assert padded.positions[index][there].tolist() == list(range(len(row.ids)))
        assert padded.ids[index, padded.column] == row.ids[row.subject]


def broken(**fields: Any) -> Edit:
    """An edit past its own checks."""
    return Edit.model_construct(**{"prompt": "The capital of {} is", "target_new": "Oslo", **fields})


def test_what_cannot_be_looked_up_is_said(tiny: LoadedModel) -> None:
    """A text beyond the model's positions, a template without a blank, an empty target: each names itself."""
    long = Edit(prompt="The capital of {} is", subject="Norway " * 100, target_new="Oslo")
    with pytest.raises(BadEditsError, match=r"tokens; tiny reads at most 96"):
        rewriting_rows(tiny, long, (("{}",),))
    with pytest.raises(UsageError, match="not once"):
        fill("no blank", broken(subject="Norway"))
    with pytest.raises(BadEditsError, match="no token"):
        answer_row(tokenise(tiny, ["The capital"])[0], "The capital")
