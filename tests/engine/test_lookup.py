"""The subject's last token and the target's tokens, by character offsets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from collabedit.client.loading import LoadedModel
from collabedit.client.lookup import (
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

CASES = {
    "start": ("{}", "{} plays the", "Toko Yasuda"),
    "middle": ("{}", "The mother tongue of {} is", "Danielle Darrieux"),
    "end": ("{}", "The capital of {}", "Norway"),
    "after a template": ("The river is long. {}", "The capital of {} is", "Norway"),
    "repeated before": ("{}", "Spain, and I, and {} is", "Spain"),
    "repeated in the template": ("Spain is long. {}", "The capital of {} is", "Spain"),
    "repeated after": ("{}", "The capital of {}, of Spain, is", "Spain"),
    "not latin": ("{}", "In {}, the language is", "日本語"),
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


@pytest.fixture(params=["tiny", "gpt2"])
def reader(request: pytest.FixtureRequest, tiny: LoadedModel) -> LoadedModel:
    """The tiny tokenizer, then GPT-2's own."""
    return tiny if request.param == "tiny" else gpt2_with(tiny, request.getfixturevalue("gpt2_tokenizer"))


@pytest.mark.parametrize("case", CASES)
def test_the_subjects_last_token_ends_it_where_the_blank_stands(reader: LoadedModel, case: str) -> None:
    """The tokens up to the one found spell the subject out in its place; those before it do not yet."""
    template, prompt, subject = CASES[case]
    filled = fill(template, Edit(prompt=prompt, subject=subject, target_new="x"))
    assert filled.start == template.index("{}") + prompt.index("{}")
    tokens = tokenise(reader, [filled.text])[0]
    found = subject_token(tokens, filled)
    spelt = filled.text[: filled.end]
    assert reader.tokenizer.decode(tokens.ids[: found + 1]).startswith(spelt)
    assert not reader.tokenizer.decode(tokens.ids[:found]).startswith(spelt)


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


def test_a_row_predicts_the_whole_target(reader: LoadedModel) -> None:
    """A row is prompt and target without its last token; its last columns predict the target's tokens."""
    edit = Edit(prompt="The mother tongue of {} is", subject="Leo Tolstoy", target_new="river of Madrid")
    for row in rewriting_rows(reader, edit, (("{}",), ("I sang. {}",))):
        target = tuple(reader.tokenizer(" river of Madrid")["input_ids"])
        assert row.labels == target
        assert row.ids[-len(target) + 1 :] == target[:-1]
        assert reader.tokenizer.decode(row.ids[: len(row.ids) - len(target) + 1]).endswith("Leo Tolstoy is")


def test_the_rows_of_keys_and_of_the_kl_term_stop_at_the_subject(reader: LoadedModel) -> None:
    """Nothing after the subject's last token is run where it has no bearing."""
    edit = Edit(prompt="The mother tongue of {} is", subject="Leo Tolstoy", target_new="French")
    for row in (*key_rows(reader, edit, (("{}", "I sang. {}"),)), drift_row(reader, edit)):
        assert row.subject == len(row.ids) - 1
        assert reader.tokenizer.decode(row.ids).endswith("Leo Tolstoy")


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
