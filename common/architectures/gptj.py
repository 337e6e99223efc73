"""GPT-J: attention and MLP read the same normalised input and are added; rotary positions on part of a head."""

from __future__ import annotations

from typing import Final

from collabedit.common.architectures.base import Architecture

GPTJ: Final = Architecture(
    model_types=("gptj",),
    family="GPT-J",
    blocks="transformer.h",
    rewrite_module="transformer.h.{}.mlp.fc_out",
    attention="transformer.h.{}.attn",
    feed_forward="transformer.h.{}.mlp",
    final_norm="transformer.ln_f",
    embeddings="transformer.wte",
    lm_head="lm_head",
    tuple_blocks=True,
    attention_interface=False,
)
