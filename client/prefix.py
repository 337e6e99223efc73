"""What the search for z computes once: everything that does not depend on δ.

Blocks at and below the z layer do not, nor do the positions before the subject's last token. Their states and their
attention keys and values are kept; each step of the search runs the blocks above on the positions from the subject's
last token on. Of those first passes, in turn, the tokens that rows of different edits have in common (their context
template, what a tokenizer puts in front of every text) are run once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from weakref import proxy

import torch
from torch import Tensor
from torch.nn import functional
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from collabedit.client.attention import prefixed
from collabedit.client.loading import LoadedModel
from collabedit.client.lookup import Row
from collabedit.client.passes import (
    Call,
    embeddings_beside,
    feed_forward_at,
    head,
    only_blocks,
    output_of,
    pad,
    recorded,
)

Heads = tuple[Tensor, Tensor]  # attention keys and values, [rows, key heads, tokens, head_dim] each


class _FrozenLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped
    """One layer's attention keys and values of a prefix; what a pass adds is seen by that pass and not kept.

    heads: keys and values, [n, key heads, prefix, head_dim]; order: which of the n each row of the pass has, by default
    its own; apart: the pass's attention reads the prefix by itself (`collabedit.client.attention`). After a pass,
    `seen` is what its attention saw of this layer.
    """

    def __init__(self, heads: Heads, *, order: Tensor | None = None, apart: bool = False) -> None:
        super().__init__()
        self.keys, self.values = heads
        self.order, self.apart = order, apart
        self.seen = heads
        self.dtype, self.device, self.is_initialized = self.keys.dtype, self.keys.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Heads:
        if self.apart:
            return key_states, value_states
        keys = self.keys if self.order is None else self.keys[self.order]
        values = self.values if self.order is None else self.values[self.order]
        self.seen = torch.cat([keys, key_states], dim=-2), torch.cat([values, value_states], dim=-2)
        return self.seen

    def get_seq_length(self) -> int:
        return int(self.keys.shape[-2])


@dataclass(frozen=True)
class Prefix:
    """Rows cut at the subject's last token, which is column 0 of `states`.

    states: [rows, columns, d_model], the z layer's undisturbed output; kept: of each block above the z layer up to the
    loss layer, keys and values, [rows, key heads, prefix, head_dim] each; mask: [rows, prefix + columns]; positions:
    [rows, columns]; asked: the first column whose logits are read.
    """

    loaded: LoadedModel
    states: Tensor
    kept: tuple[Heads, ...]
    mask: Tensor
    positions: Tensor
    z_layer: int
    loss_layer: int
    asked: int = 0

    def only(self, rows: Tensor, *, asked: int = 0) -> Prefix:
        """The same for some of the rows, by their numbers, without the columns that are padding in all of them."""
        used = self.mask[rows].any(0).nonzero()
        first, columns = min(int(used[0]), self.length), int(used[-1]) + 1 - self.length
        return replace(
            self,
            states=self.states[rows, :columns],
            kept=tuple((keys[rows][:, :, first:], values[rows][:, :, first:]) for keys, values in self.kept),
            mask=self.mask[rows, first : self.length + columns],
            positions=self.positions[rows, :columns],
            asked=asked,
        )

    def joined(self, other: Prefix) -> Prefix:
        """These rows, then the other's, padded to the longer prefix on the left and to the longer rest on the right."""
        length, columns = max(self.length, other.length), max(self.columns, other.columns)
        one, two = (each.padded(length, columns, of=self if self.kept else other) for each in (self, other))
        kept = tuple(
            (torch.cat([keys, more_keys]), torch.cat([values, more_values]))
            for (keys, values), (more_keys, more_values) in zip(one.kept, two.kept, strict=True)
        )
        return replace(
            self,
            states=torch.cat([one.states, two.states]),
            kept=kept,
            mask=torch.cat([one.mask, two.mask]),
            positions=torch.cat([one.positions, two.positions]),
            asked=min(self.asked, other.asked),
        )

    def padded(self, length: int, columns: int, *, of: Prefix) -> Prefix:
        """The same with a prefix of `length` and so many `columns`; `of` has heads of the shapes wanted."""
        before, behind = length - self.length, columns - self.columns
        kept = self.kept or tuple(
            (keys.new_empty(len(self.mask), *keys.shape[1:2], 0, keys.shape[3]),) * 2 for keys, _ in of.kept
        )
        return replace(
            self,
            states=functional.pad(self.states, (0, 0, 0, behind)),
            kept=tuple(
                (functional.pad(keys, (0, 0, before, 0)), functional.pad(values, (0, 0, before, 0)))
                for keys, values in kept
            ),
            mask=functional.pad(self.mask, (before, behind)),
            positions=functional.pad(self.positions, (0, behind)),
        )

    @property
    def columns(self) -> int:
        """Columns from the subject's last token on."""
        return int(self.states.shape[1])

    @property
    def length(self) -> int:
        """Tokens before column 0, padding counted."""
        return int(self.mask.shape[1] - self.states.shape[1])

    def first_asked(self, layer: int) -> int:
        """The first column of which a block's output is read."""
        return self.asked if layer == self.loss_layer else 0

    def heads(self, layer: int) -> Heads | None:
        """A block's keys and values of the prefix; None where no row has one."""
        return self.kept[layer - self.z_layer - 1] if self.length else None

    def _cache(self, *, apart: bool) -> Cache | None:
        """A cache in which every block has seen the prefix; those that are not run need its length alone."""
        if not self.length or not self.kept:
            return None
        absent = (self.kept[0][0][:1, :1], self.kept[0][1][:1, :1])
        below = [_FrozenLayer(absent)] * (self.z_layer + 1)
        return Cache(layers=below + [_FrozenLayer(pair, apart=apart) for pair in self.kept])

    @cached_property
    def _calls(self) -> list[Call]:
        """What each block above the z layer, up to the loss layer, is called with."""
        loaded = self.loaded
        apart = loaded.architecture.attention_interface
        cache = self._cache(apart=apart)
        with torch.no_grad(), prefixed(loaded), recorded(loaded, self.z_layer + 1, self.loss_layer) as calls:
            loaded.model.base_model(
                inputs_embeds=embeddings_beside(loaded, self.states),
                attention_mask=self.mask,
                position_ids=self.positions,
                past_key_values=cache,
                use_cache=cache is not None,
                **({"prefix": proxy(self)} if apart else {}),  # a reference would keep the tensors until Python's GC
            )
        return calls

    def logits(self, delta: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Logits [n, vocabulary] at n positions, with `delta` [rows, d_model] added to the states of column 0."""
        loaded, last = self.loaded, self.loss_layer
        states = torch.cat([self.states[:, :1] + delta.to(self.states.dtype).unsqueeze(1), self.states[:, 1:]], dim=1)
        with prefixed(loaded), feed_forward_at(loaded, last, rows, columns):
            for block, (args, kwargs) in zip(loaded.blocks[self.z_layer + 1 : last + 1], self._calls, strict=True):
                output = block(states, *args, **kwargs)
                states = output[0] if isinstance(output, tuple) else output
        picked = states[rows.to(states.device), columns.to(states.device)]
        return head(loaded, picked).to(delta.device)  # the head of a large model may be on another


@dataclass(frozen=True)
class Common:
    """Tokens that rows of different edits begin with, run once; kind number t is what the t-th rows of all share.

    lengths: how many tokens, by kind; heads: of the blocks 0 … loss layer, keys and values, [kinds, key heads, longest,
    head_dim] each, empty where no kind has a token; mask: [kinds, longest], padded on the left.
    """

    lengths: tuple[int, ...]
    heads: tuple[Heads, ...]
    mask: Tensor

    def cache(self, order: Tensor) -> Cache:
        """A cache that has seen these tokens; order: the kind of each row of the pass, [rows]."""
        if not self.heads:
            return DynamicCache()
        return Cache(layers=[_FrozenLayer(each, order=order) for each in self.heads])

    def own(self, row: Row, kind: int) -> Row:
        """A row without what it shares."""
        return Row(row.ids[self.lengths[kind] :], row.subject - self.lengths[kind], row.labels)


def common_length(rows: Sequence[Row]) -> int:
    """How many tokens all the rows begin with, none of them a subject's last."""
    most = min(row.subject for row in rows)
    first = rows[0].ids
    return next((at for at in range(most) if any(row.ids[at] != first[at] for row in rows)), most)


@torch.no_grad()
def common_of(loaded: LoadedModel, kinds: Sequence[Sequence[Row]], loss_layer: int) -> Common:
    """Runs what the rows of each kind have in common; no kind is empty."""
    lengths = tuple(common_length(rows) for rows in kinds)
    if not any(lengths):
        return Common(lengths, (), torch.empty(len(kinds), 0, dtype=torch.int64, device=loaded.device))
    ends = [max(length, 1) for length in lengths]  # a kind that shares nothing takes part with a token that is masked
    padded = pad([Row(rows[0].ids[:end], end - 1) for rows, end in zip(kinds, ends, strict=True)], loaded.device)
    cache = DynamicCache()  # without the config: no layer of it forgets what is beyond a sliding window
    with only_blocks(loaded, 0, loss_layer):
        _run(loaded, cache, padded.mask, padded.positions, input_ids=padded.ids)
    mask = padded.mask * torch.tensor(lengths, device=loaded.device).bool().unsqueeze(1)
    return Common(lengths, tuple((layer.keys, layer.values) for layer in cache.layers), mask)


@torch.no_grad()
def prefix_of(loaded: LoadedModel, rows: Sequence[Row], common: Common, z_layer: int, loss_layer: int) -> Prefix:
    """The first passes over `rows`, of kinds 0, 1, …, 0, 1, …; their subjects' last tokens share a column.

    Every column goes through the blocks up to the z layer, those before the subject's last token through the others.
    """
    kinds = len(common.lengths)
    padded = pad([common.own(row, number % kinds) for number, row in enumerate(rows)], loaded.device)
    order = torch.arange(len(rows)) % kinds  # on the CPU: blocks may lie on several devices
    shared = common.mask[order]
    mask = torch.cat([shared, padded.mask], dim=1)
    positions = padded.positions + shared.sum(1, keepdim=True)
    states: list[Tensor] = []
    with only_blocks(loaded, 0, z_layer), output_of(loaded.blocks[z_layer], states):
        _run(loaded, common.cache(order), mask, positions, input_ids=padded.ids)
    output = states[0].to(loaded.device)
    before, after = output[:, : padded.column], output[:, padded.column :].contiguous()
    above = range(z_layer + 1, loss_layer + 1)
    if padded.column and above:
        seen = mask[:, : shared.shape[1] + padded.column]
        kept = _heads_above(loaded, common.cache(order), before, seen, positions[:, : padded.column], above)
    else:
        kept = tuple((keys[order], values[order]) for keys, values in common.heads[z_layer + 1 :])
    return Prefix(loaded, after, kept, mask, positions[:, padded.column :], z_layer, loss_layer)


def _heads_above(
    loaded: LoadedModel, cache: Cache, states: Tensor, mask: Tensor, positions: Tensor, blocks: range
) -> tuple[Heads, ...]:
    """Keys and values of the prefix in the blocks above the z layer, whose output before the subject is `states`."""
    nowhere = torch.empty(0, dtype=torch.int64)
    with (
        only_blocks(loaded, blocks[0], blocks[-1], states),
        feed_forward_at(loaded, blocks[-1], nowhere, nowhere),  # of the last block nothing else is read
    ):
        _run(loaded, cache, mask, positions, inputs_embeds=embeddings_beside(loaded, states))
    found = (cache.layers[block] for block in blocks)
    return tuple(each.seen if isinstance(each, _FrozenLayer) else (each.keys, each.values) for each in found)


def _run(loaded: LoadedModel, cache: Cache, mask: Tensor, positions: Tensor, **inputs: Tensor) -> None:
    """One pass without logits, for what it leaves in the cache and in hooks."""
    with prefixed(loaded):
        loaded.model.base_model(
            **inputs, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
