"""C0's measurement: the uncentred second moment of the edited modules' inputs, all layers in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import torch
from torch import Tensor

from collabedit.client.loading import LoadedModel
from collabedit.client.lookup import Row
from collabedit.client.passes import inputs_to, only_blocks, pad, run_base
from collabedit.common.moments import MomentSum, SecondMoment

TOKENS: Final = 4096  # padded tokens of a pass


@dataclass
class Measured:
    """Where a measurement stands, between two passes.

    sums: by weight; documents: how many have been counted wholly; pieces: how many of the next one's; tokens: counted.
    """

    sums: dict[str, MomentSum] = field(default_factory=dict)
    documents: int = 0
    pieces: int = 0
    tokens: int = 0

    @property
    def moments(self) -> dict[str, SecondMoment]:
        """By weight; `.mean()` of each is C0 = E[k kᵀ], [d_in, d_in], float64. Made anew at each call."""
        return {name: each.moment() for name, each in self.sums.items()}


@dataclass(frozen=True)
class Limit:
    """When a measurement stops: after so many documents or tokens, whichever comes first. None: never."""

    documents: int | None = None
    tokens: int | None = None


@dataclass(frozen=True)
class _Piece:
    """A part of a document that goes through the model at once, and where the measurement stands behind it."""

    row: Row
    documents: int
    pieces: int


def measure_covariance(
    loaded: LoadedModel,
    texts: Iterable[str],
    layers: Sequence[int],
    *,
    rewrite_module: str = "",
    limit: Limit = Limit(),
    length: int | None = None,
    batch: int = TOKENS,
    so_far: Measured | None = None,
    on_pass: Callable[[Measured], None] | None = None,
) -> Measured:
    """Σ k kᵀ of the inputs of the edited modules, and the number of vectors, by weight, in one pass for all layers.

    Every token of every text counts once, padding never; a text longer than `length` (default: what the model's
    positions reach) is cut into pieces. Products are formed and summed in float64, in the texts' order.
    rewrite_module: name of the edited module, {} for the layer's number; default: the family's. limit: when to stop; a
    few × d_in tokens suffice. batch: most padded tokens of a pass. so_far: goes on from there, and changes it; `texts`
    must begin with the first document that is not wholly counted. A measurement that was broken off between two
    passes and taken up again ends on the same bits. on_pass: called after every pass.
    """
    measured = Measured() if so_far is None else so_far
    template = rewrite_module or loaded.architecture.rewrite_module
    modules = {f"{template.format(layer)}.weight": loaded.module(template.format(layer)) for layer in layers}
    pieces = _pieces(loaded, texts, min(length or loaded.longest, loaded.longest), limit, measured)
    for some in _batched(pieces, batch):
        _count([piece.row for piece in some], loaded, modules, max(layers), measured)
        measured.documents, measured.pieces = some[-1].documents, some[-1].pieces
        if on_pass is not None:
            on_pass(measured)
    return measured


def _pieces(loaded: LoadedModel, texts: Iterable[str], length: int, limit: Limit, start: Measured) -> Iterator[_Piece]:
    """The texts' pieces from where the measurement stands; without what a tokenizer puts behind a text."""
    left = None if limit.tokens is None else limit.tokens - start.tokens
    if left is not None and left <= 0:
        return
    documents, skipped = start.documents, start.pieces
    wanted = None if limit.documents is None else max(0, limit.documents - documents)
    for text in islice(texts, wanted):
        ids = _ids(loaded, text)
        starts = range(0, len(ids), length)
        for number in range(skipped, len(starts)):
            piece = ids[starts[number] : starts[number] + length][:left]
            last = number == len(starts) - 1
            yield _Piece(Row(tuple(piece), 0), documents + last, 0 if last else number + 1)
            left = None if left is None else left - len(piece)
            if left == 0:
                return
        documents, skipped = documents + 1, 0


def _ids(loaded: LoadedModel, text: str) -> list[int]:
    coded = loaded.tokenizer(text, return_special_tokens_mask=True, verbose=False)
    ids, special = list(coded["input_ids"]), coded["special_tokens_mask"]
    while ids and special[len(ids) - 1]:
        ids.pop()
    return ids


def _batched(pieces: Iterable[_Piece], budget: int) -> Iterator[list[_Piece]]:
    """Consecutive pieces, as many as fit into `budget` padded tokens; one at least. No piece depends on the last."""
    batch: list[_Piece] = []
    for piece in pieces:
        longest = max(len(each.row.ids) for each in (*batch, piece))
        if batch and longest * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch


@torch.no_grad()
def _count(
    rows: Sequence[Row], loaded: LoadedModel, modules: dict[str, torch.nn.Module], last: int, measured: Measured
) -> None:
    """One pass: adds each module's inputs at the unmasked tokens as soon as they are there, layer by layer."""
    padded, names = pad(rows, loaded.device), list(modules)
    present = padded.mask.bool()

    def take(number: int, inputs: Tensor) -> None:
        vectors = inputs[present.to(inputs.device)]
        if names[number] not in measured.sums:
            measured.sums[names[number]] = MomentSum.empty(vectors.shape[1], device=vectors.device)
        measured.sums[names[number]].add(vectors)

    with only_blocks(loaded, 0, last), inputs_to(list(modules.values()), take, padded):
        run_base(loaded, padded)
    measured.tokens += int(padded.mask.sum())
