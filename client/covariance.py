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
from collabedit.client.memory import is_out_of_memory
from collabedit.client.passes import Extent, groups, inputs_to, only_blocks, pad, run_base
from collabedit.common.errors import BadModelError, MismatchError, UsageError
from collabedit.common.moments import MomentSum, SecondMoment

TOKENS: Final = 4096  # padded tokens of a pass
WINDOW: Final = (
    32  # passes over which pieces of like length go together: on Wikipedia 3 % of a pass are padding, not 26 %
)


@dataclass(frozen=True)
class Place:
    """A place in the text, between two pieces: whole documents before it, pieces of the next one, tokens in all."""

    documents: int = 0
    pieces: int = 0
    tokens: int = 0


@dataclass
class Measured:
    """Where a measurement stands, between two passes.

    sums: by weight; tokens: counted. start: of the window of text that is under way; window: tokens in all of it;
    passes: made in it. When all is measured, `start` is the end, and its last document may have been read in part.
    """

    sums: dict[str, MomentSum] = field(default_factory=dict)
    tokens: int = 0
    start: Place = Place()
    window: int = 0
    passes: int = 0

    @property
    def moments(self) -> dict[str, SecondMoment]:
        """By weight; `.mean()` of each is C0 = E[k kᵀ], [d_in, d_in], float64. Made anew at each call."""
        return {name: each.moment() for name, each in self.sums.items()}

    def means(self) -> dict[str, Tensor]:
        """C0 by weight, float64, in the sums' own memory: they are lost."""
        return {name: each.into_mean() for name, each in self.sums.items()}


@dataclass(frozen=True)
class Limit:
    """When a measurement stops: after so many documents or tokens, whichever comes first. None: never."""

    documents: int | None = None
    tokens: int | None = None


@dataclass(frozen=True)
class _Piece:
    """A part of a document that goes through the model at once, and the place behind it."""

    row: Row
    behind: Place


def piece_length(loaded: LoadedModel, length: int | None, batch: int) -> int:
    """Tokens at which documents are cut: `length`, or a pass's, but never more than the model's positions reach."""
    return min(length or batch, loaded.longest)


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

    Every token of every text counts once, padding never. Products are formed and summed in float64, in an order that
    text, length and batch fix: pieces of like length go together within windows of `WINDOW` passes.
    rewrite_module: name of the edited module, {} for the layer's number; default: the family's. limit: when to stop; a
    few × d_in tokens suffice. length: see `piece_length`. batch: most padded tokens of a pass. on_pass: called after
    every pass. so_far: of a measurement broken off between two passes: goes on from there to the same bits, and changes
    it; `texts` must begin with document number `so_far.start.documents`.
    Raises BadModelError where inputs are not finite, UsageError where memory runs out, MismatchError where `so_far` had
    another end in sight.
    """
    measured = Measured() if so_far is None else so_far
    template = rewrite_module or loaded.architecture.rewrite_module
    modules = {f"{template.format(layer)}.weight": loaded.module(template.format(layer)) for layer in layers}
    pieces = _pieces(loaded, texts, piece_length(loaded, length, batch), limit, measured.start)
    for window in _windows(pieces, WINDOW * batch, measured):
        for rows in _batches(window, batch)[measured.passes :]:
            _count(rows, loaded, modules, max(layers), measured)
            measured.passes += 1
            if on_pass is not None:
                on_pass(measured)
        measured.start, measured.passes = window[-1].behind, 0
    return measured


def _pieces(loaded: LoadedModel, texts: Iterable[str], length: int, limit: Limit, start: Place) -> Iterator[_Piece]:
    """The texts' pieces from a place on; without what a tokenizer puts behind a text."""
    documents, skipped, tokens = start.documents, start.pieces, start.tokens
    wanted = None if limit.documents is None else max(0, limit.documents - documents)
    most = float("inf") if limit.tokens is None else limit.tokens
    if tokens >= most:
        return
    for text in islice(texts, wanted):
        ids = _ids(loaded, text)
        starts = range(0, len(ids), length)
        for number in range(skipped, len(starts)):
            piece = ids[starts[number] : starts[number] + length][: int(min(length, most - tokens))]
            last = number == len(starts) - 1
            tokens += len(piece)
            yield _Piece(Row(tuple(piece), 0), Place(documents + last, 0 if last else number + 1, tokens))
            if tokens >= most:
                return
        documents, skipped = documents + 1, 0


def _ids(loaded: LoadedModel, text: str) -> list[int]:
    coded = loaded.tokenizer(text, return_special_tokens_mask=True, verbose=False)
    ids, special = list(coded["input_ids"]), coded["special_tokens_mask"]
    while ids and special[len(ids) - 1]:
        ids.pop()
    return ids


def _windows(pieces: Iterator[_Piece], budget: int, measured: Measured) -> Iterator[list[_Piece]]:
    """Consecutive pieces of `budget` tokens or just over; nothing behind a window is read before it is done with."""
    while window := list(_until(pieces, budget)):
        tokens = sum(len(piece.row.ids) for piece in window)
        if measured.passes and tokens != measured.window:
            break
        measured.window = tokens
        yield window
    if measured.passes:  # of a window that is not there, or that the stopping rule now cuts elsewhere
        raise MismatchError(
            "the stopping rule now ends, or then ended, within the text that the broken-off run was at",
            mend="give the stopping rule that it had, or begin anew",
        )


def _until(pieces: Iterator[_Piece], budget: int) -> Iterator[_Piece]:
    taken = 0
    while taken < budget and (piece := next(pieces, None)) is not None:
        taken += len(piece.row.ids)
        yield piece


def _batches(window: Sequence[_Piece], budget: int) -> list[list[Row]]:
    """The passes of a window, those of the longest pieces first: what does not fit into memory shows at once."""
    rows = [piece.row for piece in window]
    found = groups([Extent.of([row]) for row in rows], budget)
    return [[rows[index] for index in batch] for batch in reversed(found)]


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

    try:
        with only_blocks(loaded, 0, last), inputs_to(list(modules.values()), take, padded):
            run_base(loaded, padded)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UsageError(
            f"out of memory with {padded.ids.numel()} tokens at once", mend="give a smaller --batch-tokens or --length"
        ) from error
    _demand_finite(measured.sums)
    measured.tokens += sum(len(row.ids) for row in rows)


def _demand_finite(sums: dict[str, MomentSum]) -> None:
    """An input that is not finite shows on the diagonal."""
    for name, each in sums.items():
        if not bool(torch.isfinite(each.total.diagonal()).all()):
            raise BadModelError(
                f"{name}: its inputs left the finite numbers",
                mend="float16 reaches 65504: give --model-dtype bfloat16 or float32; are the weights finite?",
            )
