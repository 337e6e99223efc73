"""GPT-2 and its sizes (gpt2, gpt2-medium, gpt2-large, gpt2-xl), DistilGPT-2, and the bundled `atlas`."""

from __future__ import annotations

from typing import Final

from collabedit.common.architectures.base import Architecture

GPT2: Final = Architecture(
    model_types=("gpt2",),
    family="GPT-2, DistilGPT-2, `atlas`",
    blocks="transformer.h",
    rewrite_module="transformer.h.{}.mlp.c_proj",
    attention="transformer.h.{}.attn",
    feed_forward="transformer.h.{}.mlp",
    final_norm="transformer.ln_f",
    embeddings="transformer.wte",
    lm_head="lm_head",
    transposed=True,
)
