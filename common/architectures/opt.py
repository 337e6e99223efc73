"""OPT: learned positions; the MLP's matrices stand in the block itself; 350m has its norms behind, not before."""

from __future__ import annotations

from typing import Final

from collabedit.common.architectures.base import Architecture

OPT: Final = Architecture(
    model_types=("opt",),
    family="OPT",
    blocks="model.decoder.layers",
    rewrite_module="model.decoder.layers.{}.fc2",
    attention="model.decoder.layers.{}.self_attn",
    feed_forward="model.decoder.layers.{}.fc2",
    final_norm="model.decoder.final_layer_norm",
    embeddings="model.decoder.embed_tokens",
    lm_head="lm_head",
    output_projection="model.decoder.project_out",
)
