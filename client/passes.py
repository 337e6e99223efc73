"""Passes through part of a model: some blocks, some columns, logits at some positions.

transformers' own forward is run throughout, so that masks, positions and rotary embeddings are the family's own; only
blocks that need not run are taken out for the time of the pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from collabedit.client.loading import LoadedModel
from collabedit.client.lookup import Row


@dataclass(frozen=True)
class Padded:
    """Rows as one rectangle, the subject's last token of each on the same column.

    ids, mask (1 where a token is), positions: [rows, columns], int64. column: the subject's.
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor
    column: int


def pad(rows: Sequence[Row], device: torch.device) -> Padded:
    """Pads rows: left, up to the longest before the subject's last token; right, up to the longest from there on."""
    before = max(row.subject for row in rows)
    after = max(len(row.ids) - row.subject for row in rows)
    ids = torch.zeros(len(rows), before + after, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        left = before - row.subject
        ids[index, left : left + len(row.ids)] = torch.tensor(row.ids)
        mask[index, left : left + len(row.ids)] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return Padded(ids.to(device), mask.to(device), positions.to(device), before)


class _Skipped(nn.Module):
    """Stands in for a block that is not run: hands on what it is given, or `entering` in its place."""

    def __init__(self, as_tuple: bool, entering: Tensor | None) -> None:
        super().__init__()
        self.as_tuple = as_tuple
        self.entering = entering

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        states = hidden_states if self.entering is None else self.entering
        return (states, None) if self.as_tuple else states


Call = tuple[tuple[Any, ...], dict[str, Any]]  # what a block is called with beside the hidden states


class _Recorder(_Skipped):
    """Stands in for a block and notes what it is called with."""

    def __init__(self, as_tuple: bool, calls: list[Call]) -> None:
        super().__init__(as_tuple, None)
        self.calls = calls

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        self.calls.append((args, kwargs))
        return super().forward(hidden_states)


@contextmanager
def recorded(loaded: LoadedModel, first: int, last: int) -> Iterator[list[Call]]:
    """Inside, no block is run, and what the blocks first … last are called with is noted, in their order.

    Masks, positions and rotary embeddings are the family's own, and the same as long as the rows are: with them the
    blocks can be called again and again without what stands around them.
    """
    calls: list[Call] = []
    blocks, as_tuple = loaded.blocks, loaded.architecture.tuple_blocks
    kept = list(blocks)
    try:
        for index in range(len(kept)):
            blocks[index] = _Recorder(as_tuple, calls) if first <= index <= last else _Skipped(as_tuple, None)
        yield calls
    finally:
        for index, block in enumerate(kept):
            blocks[index] = block


def head(loaded: LoadedModel, states: Tensor) -> Tensor:
    """Logits [n, vocabulary] of the last block's output at n positions, [n, d_model]."""
    architecture = loaded.architecture
    for name in (architecture.final_norm, architecture.output_projection, architecture.lm_head):
        module = loaded.find_module(name)
        states = states if module is None else module(states)
    cap = getattr(loaded.model.config.get_text_config(), "final_logit_softcapping", None)
    return states if cap is None else cap * torch.tanh(states / cap)


@contextmanager
def only_blocks(loaded: LoadedModel, first: int, last: int, entering: Tensor | None = None) -> Iterator[None]:
    """Inside, the model runs the blocks first … last alone (none where last < first).

    entering: [rows, columns, d_model], what block `first` (≥ 1) is given in place of the output of the one below.
    """
    blocks, as_tuple = loaded.blocks, loaded.architecture.tuple_blocks
    kept = list(blocks)
    try:
        for index in range(len(kept)):
            if not first <= index <= last:
                blocks[index] = _Skipped(as_tuple, entering if index == first - 1 else None)
        yield
    finally:
        for index, block in enumerate(kept):
            blocks[index] = block


@contextmanager
def inputs_to(modules: Sequence[nn.Module], take: Callable[[int, Tensor], None], padded: Padded) -> Iterator[None]:
    """Inside, `take` is called with each module's number in `modules` and its input, [rows, columns, d_in].

    padded: what is run; OPT gives its modules rows and columns in one.
    """
    shape = padded.ids.shape

    def hook(number: int) -> Any:
        return lambda _, args: take(number, args[0].detach().reshape(*shape, -1))

    handles = [module.register_forward_pre_hook(hook(number)) for number, module in enumerate(modules)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def inputs_of(modules: Sequence[nn.Module], into: dict[int, Tensor], padded: Padded) -> AbstractContextManager[None]:
    """Inside, each module's input, [rows, columns, d_in], is put into `into` under its number in `modules`."""
    return inputs_to(modules, into.__setitem__, padded)


@contextmanager
def output_of(module: nn.Module, into: list[Tensor]) -> Iterator[None]:
    """Inside, each output of a block is appended to `into`."""

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        into.append((output[0] if isinstance(output, tuple) else output).detach())

    handle = module.register_forward_hook(keep)
    try:
        yield
    finally:
        handle.remove()


def _at(states: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The states at some positions, [n, d]; the numbers may be on another device: blocks of a large model are."""
    return states[rows.to(states.device), columns.to(states.device)]


@contextmanager
def logits_at(loaded: LoadedModel, rows: Tensor, columns: Tensor) -> Iterator[None]:
    """Inside, the model's logits are [1, n, vocabulary]: those of the n positions (rows[i], columns[i]) alone.

    What the family does with logits after the head (scaling, soft caps) stays as it is.
    """

    def pick(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (_at(args[0], rows, columns).unsqueeze(0),)

    head = loaded.model.get_submodule(loaded.architecture.lm_head)
    handle = head.register_forward_pre_hook(pick)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def feed_forward_at(loaded: LoadedModel, layer: int, rows: Tensor, columns: Tensor) -> Iterator[None]:
    """Inside, a block's feed-forward part runs at n positions alone: for the last block, read nowhere else.

    At other positions the block's output is not that of the model.
    """
    name = loaded.architecture.rewrite_module.rpartition(".")[0]
    if name == loaded.architecture.layer_module:  # the family's blocks have no module for it
        yield
        return
    shapes: list[torch.Size] = []

    def gather(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        shapes.append(args[0].shape)
        return (_at(args[0], rows, columns).unsqueeze(0), *args[1:])

    def scatter(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        places = rows.to(output.device), columns.to(output.device)
        return output.new_zeros(shapes.pop()).index_put(places, output[0])

    module = loaded.module(name.format(layer))
    handles = [module.register_forward_pre_hook(gather), module.register_forward_hook(scatter)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def embeddings_beside(loaded: LoadedModel, states: Tensor) -> Tensor:
    """Embeddings [rows, columns, …] that stand in where the first block that runs is given `states` [rows, columns, d].

    Nothing reads them, but their width must be the embeddings' own, which in OPT 350m is not the blocks'.
    """
    width = loaded.model.get_input_embeddings().weight.shape[1]
    return states if states.shape[-1] == width else states.new_zeros(*states.shape[:-1], width)


def run_base(loaded: LoadedModel, padded: Padded) -> Tensor:
    """One pass without logits. Returns the final norm's output, [rows, columns, d_model]."""
    output = loaded.model.base_model(
        input_ids=padded.ids, attention_mask=padded.mask, position_ids=padded.positions, use_cache=False
    )
    states: Tensor = output.last_hidden_state
    return states


@dataclass(frozen=True)
class Extent:
    """What one item's rows need: their number, and the columns before the aligned one and from there on."""

    rows: int
    before: int
    after: int

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Extent:
        """The extent of rows that stay together."""
        return cls(len(rows), max(row.subject for row in rows), max(len(row.ids) - row.subject for row in rows))

    @property
    def tokens(self) -> int:
        """Padded tokens."""
        return self.rows * (self.before + self.after)

    def beside(self, other: Extent) -> Extent:
        """What both items' rows need as one rectangle."""
        return Extent(self.rows + other.rows, max(self.before, other.before), max(self.after, other.after))


def groups(extents: Sequence[Extent], budget: int, *, slack: int | None = None) -> list[list[int]]:
    """Splits items into batches of at most `budget` padded tokens, one item at least; items of like length together.

    slack: most tokens of padding behind the rows of a batch; by default as many as there are.
    The batches, their order and the order in them are fixed by the extents and the items' order.
    """
    order = sorted(range(len(extents)), key=lambda index: (extents[index].after, extents[index].before, index))
    batches: list[list[int]] = []
    now, filled = Extent(0, 0, 0), 0
    for index in order:
        item = extents[index]
        wider, more = now.beside(item), filled + item.rows * item.after
        if not batches or wider.tokens > budget or (slack is not None and wider.rows * wider.after - more > slack):
            batches.append([])
            wider, more = item, item.rows * item.after
        batches[-1].append(index)
        now, filled = wider, more
    return batches
