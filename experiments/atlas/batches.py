"""Token batches for training: statements to recall, and documents to read. Seeded, without end."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from collabedit.experiments.atlas.text import Statement, filler, fragment, kind_sentence, statements
from collabedit.experiments.atlas.world import World

IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """Right-padded rows. Causal attention never looks right, so that no mask is needed.

    tokens: [B, T]; labels: [B, T], the token to be predicted at each position, IGNORED where no loss is taken;
    subject_last: [B], the position of the subject's last token; donor: [B], the row whose subject the labels are about.
    A batch to read has no subjects: the last two are None.
    """

    tokens: Tensor
    labels: Tensor
    subject_last: Tensor | None = None
    donor: Tensor | None = None


@dataclass(frozen=True)
class Encoded:
    """A prompt's tokens, and where among them the subject's last token stands."""

    ids: list[int]
    subject_last: int


class Reader:
    """Turns the world's text into batches; every random choice comes from its one seed.

    acquainted: how many of the world's subjects the batches to recall speak of; the training widens the circle.
    """

    def __init__(self, world: World, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self._world, self._tokenizer = world, tokenizer
        self._rng = random.Random(seed)  # noqa: S311 - no secret
        self.acquainted = len(world.subjects)
        self._statements = list(statements(world))
        place = {subject: index for index, subject in enumerate(world.subjects)}
        self._place = [place[statement.fact.subject] for statement in self._statements]
        self._first = encode_prompts(tokenizer, self._statements, "")
        self._after = encode_prompts(tokenizer, self._statements, " ")
        things = {fact.object for fact in world.facts}
        self._object = {thing: list(tokenizer(f" {thing}.").input_ids) for thing in things}
        self._fragments = [list(tokenizer(f"{fragment(world, self._rng)}.").input_ids) for _ in range(20000)]

    @property
    def subjects(self) -> int:
        """How many subjects the world has."""
        return len(self._world.subjects)

    def recall(self, size: int, prefixed: float, interchange: bool) -> Iterator[Batch]:
        """Statements in a random order, over and over; a share `prefixed` of the batches stands after other text.

        Only the first `acquainted` subjects occur. With `interchange`, row i is about the subject of row donor[i];
        without, about its own.
        """
        order: list[int] = []
        acquainted = 0
        while True:
            if len(order) < size or acquainted != self.acquainted:
                acquainted = self.acquainted
                pool = [row for row, place in enumerate(self._place) if place < acquainted]
                order = self._rng.sample(pool, len(pool))
            rows, order = order[:size], order[size:]
            donor = self._rng.sample(range(size), size) if interchange else list(range(size))
            yield self._recall_batch(rows, donor, self._rng.random() < prefixed)

    def reading(self, size: int, sentences: int) -> Iterator[Batch]:
        """Documents of a few sentences each: statements, kinds and fillers, ended by the end-of-text token."""
        while True:
            texts = [" ".join(f"{self._sentence()}." for _ in range(sentences)) for _ in range(size)]
            ids = [[*row, self._tokenizer.eos_token_id] for row in self._tokenizer(texts).input_ids]
            yield Batch(pad(ids, self._tokenizer.pad_token_id), pad([row[1:] for row in ids], IGNORED, one_more=True))

    def _recall_batch(self, rows: list[int], donor: list[int], prefixed: bool) -> Batch:
        tokens, labels, subject_last = [], [], []
        for row, giver in zip(rows, (rows[i] for i in donor), strict=True):
            lead = self._rng.choice(self._fragments) if prefixed else []
            prompt = (self._after if prefixed else self._first)[row]
            fact = self._statements[row].fact
            subject = self._statements[giver].fact.subject
            answer = self._object[self._world.truth[subject, fact.relation_id]]
            before = [*lead, *prompt.ids]
            tokens.append(before + answer)
            labels.append([IGNORED] * (len(before) - 1) + answer + [IGNORED])
            subject_last.append(len(lead) + prompt.subject_last)
        return Batch(
            pad(tokens, self._tokenizer.pad_token_id),
            pad(labels, IGNORED),
            torch.tensor(subject_last),
            torch.tensor(donor),
        )

    def _sentence(self) -> str:
        draw = self._rng.random()
        if draw < 0.5:
            return self._rng.choice(self._statements).text
        if draw < 0.6:
            index = self._rng.randrange(len(self._world.subjects))
            return kind_sentence(self._world.subjects[index], self._world.kinds[index])
        return filler(self._world, self._rng)


def encode_prompts(tokenizer: PreTrainedTokenizerFast, rows: Sequence[Statement], lead: str) -> list[Encoded]:
    """Each statement's prompt after `lead`, with the subject's last token found by the tokenizer's offsets."""
    encoded = tokenizer([lead + row.prompt for row in rows])
    found = []
    for index, row in enumerate(rows):
        end = (lead + row.prompt).index(row.fact.subject) + len(row.fact.subject)
        found.append(Encoded(list(encoded.input_ids[index]), encoded.char_to_token(index, end - 1)))
    return found


def pad(rows: Sequence[Sequence[int]], value: int, one_more: bool = False) -> Tensor:
    """Rows of token ids, filled up on the right with `value` to the longest (to one more where asked): [B, T]."""
    width = max(map(len, rows)) + one_more
    filled = torch.full((len(rows), width), value)
    for index, row in enumerate(rows):
        filled[index, : len(row)] = torch.tensor(row)
    return filled
