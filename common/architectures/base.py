"""What the system must know of a family of models: names of modules, and how the edited weight is stored."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """One family, as data. Module names are paths in transformers' `…ForCausalLM`; `{}` stands for a layer's number.

    family: what people call its models.
    transposed: the edited weight is stored [d_in, d_out] (GPT-2's Conv1D) and is normalised to [d_out, d_in] on
    reading, and back on writing, by `collabedit.common.model_folder` and `collabedit.client.weights` alone.
    tuple_blocks: a block returns (hidden states, …) rather than the hidden states themselves.
    final_norm, output_projection, lm_head: what turns the last block's output into logits, where a model has it.
    attention, feed_forward: the modules of a block whose outputs are its attention's and its MLP's. OPT's blocks have
    no module for their MLP: feed_forward is the rewrite module there, and takes and gives [rows · columns, …].
    attention_interface: its attention is handed on by transformers' AttentionInterface.
    stored: (prefix of a module's name, prefix that files have in its place), where transformers renames on loading.
    """

    model_types: tuple[str, ...]
    family: str
    blocks: str
    rewrite_module: str
    attention: str
    feed_forward: str
    final_norm: str
    embeddings: str
    lm_head: str
    output_projection: str = ""
    transposed: bool = False
    tuple_blocks: bool = False
    attention_interface: bool = True
    stored: tuple[str, str] = ("", "")

    @property
    def layer_module(self) -> str:
        """Name of a block, `{}` for its number."""
        return f"{self.blocks}.{{}}"

    def weight_name(self, layer: int) -> str:
        """Full name of the edited parameter of one layer."""
        return f"{self.rewrite_module.format(layer)}.weight"
