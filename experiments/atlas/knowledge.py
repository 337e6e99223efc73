"""How much of the world the model knows: the share of facts whose every object token is its first choice."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from collabedit.experiments.atlas.batches import IGNORED, pad
from collabedit.experiments.atlas.text import Statement

_ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Knowledge:
    """Share of facts known, by (relation id, index of the phrasing)."""

    shares: dict[tuple[str, int], float]

    @property
    def worst(self) -> float:
        """The share in the phrasing that is known worst."""
        return min(self.shares.values())

    @property
    def mean(self) -> float:
        """The mean over the phrasings."""
        return sum(self.shares.values()) / len(self.shares)


def known(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, rows: Sequence[Statement], lead: str = ""
) -> list[bool]:
    """For each statement, after the text `lead`: does greedy decoding of the prompt give the object?"""
    answers: list[bool] = []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        answers += _known_at_once(model, tokenizer, rows[start : start + _ROWS_AT_ONCE], lead)
    return answers


def measure(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, rows: Sequence[Statement], lead: str = ""
) -> Knowledge:
    """The share of the statements known, phrasing by phrasing."""
    tally: dict[tuple[str, int], list[bool]] = {}
    for row, answer in zip(rows, known(model, tokenizer, rows, lead), strict=True):
        tally.setdefault((row.fact.relation_id, row.phrasing), []).append(answer)
    return Knowledge({key: sum(answers) / len(answers) for key, answers in tally.items()})


@torch.no_grad()
def _known_at_once(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, rows: Sequence[Statement], lead: str
) -> list[bool]:
    """Teacher-forced argmax over the object's tokens; equal to greedy decoding where all are right."""
    prompts = tokenizer([lead + row.prompt for row in rows]).input_ids
    objects = tokenizer([f" {row.fact.object}" for row in rows]).input_ids
    tokens = pad([p + o for p, o in zip(prompts, objects, strict=True)], tokenizer.pad_token_id)
    labels = pad([[IGNORED] * (len(p) - 1) + o + [IGNORED] for p, o in zip(prompts, objects, strict=True)], IGNORED)
    hidden = model.transformer(input_ids=tokens).last_hidden_state
    asked = labels != IGNORED
    right = torch.ones_like(asked)
    right[asked] = model.lm_head(hidden[asked]).argmax(-1) == labels[asked]
    return right.all(dim=1).tolist()
