"""What the search for z computes once: everything that does not depend on δ.

Blocks at and below the z layer do not, nor do the positions before the subject's last token. Their states and their
attention keys and values are kept; each step of the search runs the blocks above on the positions from the subject's
last token on.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from collabedit.client.loading import LoadedModel
from collabedit.client.lookup import Row
from collabedit.client.passes import feed_forward_at, logits_at, only_blocks, output_of, pad


class _FrozenLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped
    """One layer's attention keys and values of the prefix; what a pass adds is seen by that pass and not kept."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return torch.cat([self.keys, key_states], dim=-2), torch.cat([self.values, value_states], dim=-2)

    def get_seq_length(self) -> int:
        return int(self.keys.shape[-2])


@dataclass(frozen=True)
class Prefix:
    """Rows cut at the subject's last token, which is column 0 of `states`.

    states: [rows, columns, d_model], the z layer's undisturbed output; keys, values: of each block above the z layer up
    to the loss layer, [rows, heads, prefix, head_dim]; mask: [rows, prefix + columns]; positions: [rows, columns].
    """

    states: Tensor
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor
    positions: Tensor
    z_layer: int
    loss_layer: int

    def only(self, rows: Tensor) -> Prefix:
        """The same for some of the rows, by their numbers."""
        return Prefix(
            self.states[rows],
            tuple(each[rows] for each in self.keys),
            tuple(each[rows] for each in self.values),
            self.mask[rows],
            self.positions[rows],
            self.z_layer,
            self.loss_layer,
        )

    def _cache(self) -> Cache | None:
        """A cache in which every block has seen the prefix; those that are not run need its length alone."""
        length = self.mask.shape[1] - self.states.shape[1]
        if length == 0 or not self.keys:
            return None
        absent = self.keys[0][:1, :1]
        below = [_FrozenLayer(absent, absent)] * (self.z_layer + 1)
        return Cache(layers=below + [_FrozenLayer(*pair) for pair in zip(self.keys, self.values, strict=True)])

    def logits(self, loaded: LoadedModel, delta: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Logits [n, vocabulary] at n positions, with `delta` [rows, d_model] added to the states of column 0."""
        moved = torch.cat([self.states[:, :1] + delta.to(self.states.dtype).unsqueeze(1), self.states[:, 1:]], dim=1)
        cache = self._cache()
        mask = self.mask if cache is not None else self.mask[:, -moved.shape[1] :]
        with (
            only_blocks(loaded, self.z_layer + 1, self.loss_layer, moved),
            feed_forward_at(loaded, self.loss_layer, rows, columns),
            logits_at(loaded, rows, columns),
        ):
            output = loaded.model(
                inputs_embeds=self.states,
                attention_mask=mask,
                position_ids=self.positions,
                past_key_values=cache,
                use_cache=cache is not None,
            )
        logits: Tensor = output.logits[0]
        return logits


@torch.no_grad()
def prefix_of(loaded: LoadedModel, rows: Sequence[Row], z_layer: int, loss_layer: int) -> Prefix:
    """The one full pass over `rows`, all padded so that their subjects' last tokens share a column."""
    padded = pad(rows, loaded.device)
    cache = DynamicCache()  # without the config: no layer of it forgets what is beyond a sliding window
    states: list[Tensor] = []
    nowhere = torch.empty(0, dtype=torch.int64, device=loaded.device)
    with ExitStack() as stack:
        if loss_layer > z_layer:  # of the last block nothing is read but keys and values
            stack.enter_context(feed_forward_at(loaded, loss_layer, nowhere, nowhere))
        stack.enter_context(only_blocks(loaded, 0, loss_layer))
        stack.enter_context(output_of(loaded.blocks[z_layer], states))
        loaded.model.base_model(
            input_ids=padded.ids,
            attention_mask=padded.mask,
            position_ids=padded.positions,
            past_key_values=cache,
            use_cache=True,
        )
    above = cache.layers[z_layer + 1 : loss_layer + 1]
    return Prefix(
        states=states[0][:, padded.column :].contiguous(),
        keys=tuple(layer.keys[:, :, : padded.column].contiguous() for layer in above),
        values=tuple(layer.values[:, :, : padded.column].contiguous() for layer in above),
        mask=padded.mask,
        positions=padded.positions[:, padded.column :],
        z_layer=z_layer,
        loss_layer=loss_layer,
    )
