"""C0's measurement: the uncentred second moment of the edited modules' inputs, all layers in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from collabedit.client.loading import LoadedModel
from collabedit.client.lookup import Row
from collabedit.client.passes import inputs_of, only_blocks, pad, run_base
from collabedit.common.moments import SecondMoment

TOKENS = 4096  # padded tokens of a pass


def measure_covariance(
    loaded: LoadedModel,
    texts: Iterable[str],
    layers: Sequence[int],
    *,
    rewrite_module: str = "",
    max_tokens: int | None = None,
    length: int | None = None,
    batch: int = TOKENS,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, SecondMoment]:
    """Σ k kᵀ and the number of vectors, by weight; `.mean()` of each is C0 = E[k kᵀ], [d_in, d_in], float64.

    Every token of every text counts once, padding never; a text longer than `length` (default: what the model's
    positions reach) is cut into pieces. Products are accumulated in float64, in the texts' order.
    rewrite_module: name of the edited module, {} for the layer's number; default: the family's.
    max_tokens: stop after this many; a few × d_in suffice. batch: most padded tokens of a pass.
    on_progress: called with the tokens counted so far.
    """
    template = rewrite_module or loaded.architecture.rewrite_module
    names = [f"{template.format(layer)}.weight" for layer in layers]
    modules = [loaded.module(template.format(layer)) for layer in layers]
    moments: list[SecondMoment | None] = [None] * len(names)
    pieces = _pieces(loaded, texts, min(length or loaded.longest, loaded.longest), max_tokens)
    for rows in _batched(pieces, batch):
        for number, vectors in _inputs(loaded, rows, modules, max(layers)).items():
            moment, before = SecondMoment.of(vectors), moments[number]
            moments[number] = moment if before is None else before.merge(moment)
        if on_progress is not None and moments[0] is not None:
            on_progress(moments[0].count)
    return {name: moment for name, moment in zip(names, moments, strict=True) if moment is not None}


def _pieces(loaded: LoadedModel, texts: Iterable[str], length: int, most: int | None) -> Iterator[Row]:
    left = most
    for text in texts:
        ids = loaded.tokenizer(text, verbose=False)["input_ids"]
        for start in range(0, len(ids), length):
            piece = tuple(ids[start : start + length][:left])
            if piece:
                yield Row(piece, 0)
            if left is not None:
                left -= len(piece)
                if left <= 0:
                    return


def _batched(rows: Iterable[Row], budget: int) -> Iterator[list[Row]]:
    """Consecutive rows, as many as fit into `budget` padded tokens; one at least."""
    batch: list[Row] = []
    for row in rows:
        longest = max(len(each.ids) for each in (*batch, row))
        if batch and longest * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


@torch.no_grad()
def _inputs(
    loaded: LoadedModel, rows: Sequence[Row], modules: Sequence[torch.nn.Module], last: int
) -> dict[int, Tensor]:
    """Each module's inputs at the unmasked tokens of a batch: [tokens, d_in]."""
    padded = pad(rows, loaded.device)
    inputs: dict[int, Tensor] = {}
    with only_blocks(loaded, 0, last), inputs_of(modules, inputs, padded):
        run_base(loaded, padded)
    there = padded.mask.bool()
    return {number: inputs[number][there.to(inputs[number].device)] for number in sorted(inputs)}
