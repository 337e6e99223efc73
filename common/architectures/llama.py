"""Llama 2 and 3, and what is built of the same modules: rotary positions, grouped heads, a gated MLP."""

from __future__ import annotations

from typing import Final

from collabedit.common.architectures.base import Architecture

LLAMA: Final = Architecture(
    model_types=("llama",),
    family="Llama 2, 3",
    blocks="model.layers",
    rewrite_module="model.layers.{}.mlp.down_proj",
    attention="model.layers.{}.self_attn",
    feed_forward="model.layers.{}.mlp",
    final_norm="model.norm",
    embeddings="model.embed_tokens",
    lm_head="lm_head",
)
