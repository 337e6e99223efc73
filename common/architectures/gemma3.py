"""Gemma 3: Llama's modules, local and global attention; from 4b on inside a model that also sees pictures."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from collabedit.common.architectures.base import Architecture
from collabedit.common.architectures.llama import LLAMA

GEMMA3_TEXT: Final = replace(LLAMA, model_types=("gemma3_text",), family="Gemma 3 (270m, 1b)")

GEMMA3: Final = Architecture(
    model_types=("gemma3",),
    family="Gemma 3 (4b and larger)",
    blocks="model.language_model.layers",
    rewrite_module="model.language_model.layers.{}.mlp.down_proj",
    attention="model.language_model.layers.{}.self_attn",
    feed_forward="model.language_model.layers.{}.mlp",
    final_norm="model.language_model.norm",
    embeddings="model.language_model.embed_tokens",
    lm_head="lm_head",
    stored=("model.language_model.", "language_model.model."),
)
