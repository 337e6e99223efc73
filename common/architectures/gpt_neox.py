"""GPT-NeoX and Pythia: parallel blocks, or serial ones where config.json has `use_parallel_residual: false`."""

from __future__ import annotations

from typing import Final

from collabedit.common.architectures.base import Architecture

GPT_NEOX: Final = Architecture(
    model_types=("gpt_neox",),
    family="GPT-NeoX, Pythia",
    blocks="gpt_neox.layers",
    rewrite_module="gpt_neox.layers.{}.mlp.dense_4h_to_h",
    attention="gpt_neox.layers.{}.attention",
    feed_forward="gpt_neox.layers.{}.mlp",
    final_norm="gpt_neox.final_layer_norm",
    embeddings="gpt_neox.embed_in",
    lm_head="lm_head",
)
