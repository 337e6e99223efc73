"""Hyperparameters by model: published ones, recognised by the model's sizes, and for other models ones derived of them.

The published ones are MEMIT's own (gpt2-xl, gpt-j-6b) and those of later work that edits the other models with MEMIT.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from collabedit.common.errors import BadModelError
from collabedit.common.hparams import HyperParameters
from collabedit.common.model_folder import ModelFolder


@dataclass(frozen=True)
class Preset:
    """Published hyperparameters and the model that they are of: config.json's type, depth, width and vocabulary."""

    name: str
    model_type: str
    depth: int
    width: int
    vocabularies: tuple[int, ...]
    hparams: HyperParameters

    def fits(self, sizes: Sizes) -> bool:
        """Whether a model has the sizes of this one."""
        own = (self.model_type, self.depth, self.width)
        return own == (sizes.model_type, sizes.depth, sizes.width) and sizes.vocabulary in self.vocabularies


@dataclass(frozen=True)
class Sizes:
    """What tells models apart: depth in blocks, width d_model, tokens of the vocabulary; None where it is not said."""

    model_type: str
    depth: int
    width: int | None
    vocabulary: int | None


@dataclass(frozen=True)
class Chosen:
    """Hyperparameters, and a line that says where they come from; empty where the model's folder brings them."""

    hparams: HyperParameters
    note: str = ""


def _published(
    first: int, last: int, steps: int, lr: float, decay: float, clamp: float, weight: float, loss: int
) -> Any:
    """One row of the table: edited layers, steps and rate of the search, wd, clamp, λ, loss layer."""
    return HyperParameters(
        layers=tuple(range(first, last + 1)), v_num_grad_steps=steps, v_lr=lr, v_loss_layer=loss, v_weight_decay=decay,
        clamp_norm_factor=clamp, kl_factor=0.0625, mom2_update_weight=weight,
    )  # fmt: skip


PRESETS: Final = (
    Preset("gpt2-xl", "gpt2", 48, 1600, (50257,), _published(13, 17, 20, 0.5, 0.5, 0.75, 20_000, 47)),
    Preset("gpt-j-6b", "gptj", 28, 4096, (50400,), _published(3, 8, 25, 0.5, 0.5, 0.75, 15_000, 27)),
    Preset("llama-3-8b", "llama", 32, 4096, (128256,), _published(4, 8, 25, 0.1, 0.5, 0.75, 15_000, 31)),
    Preset("llama-2-7b", "llama", 32, 4096, (32000,), _published(4, 8, 25, 0.5, 1e-3, 4, 15_000, 31)),
    Preset("mistral-7b", "mistral", 32, 4096, (32000, 32768), _published(4, 8, 25, 0.5, 1e-3, 4, 15_000, 31)),
    Preset("qwen2-7b", "qwen2", 28, 3584, (152064,), _published(4, 8, 25, 0.5, 1e-3, 4, 15_000, 27)),
)
COMMONEST: Final = PRESETS[3]  # its values are those of most presets: the model for a family that has none
MOST_LAYERS: Final = 6  # as many as any preset edits


def choose_hparams(folder: ModelFolder) -> Chosen:
    """The folder's own hyperparameters (hparams.json); else the published ones of a model of these sizes; else derived.

    Raises BadFileError for an hparams.json that is none, BadModelError where the config does not tell the depth.
    """
    if folder.preset is not None:
        return Chosen(folder.preset)
    sizes = sizes_of(folder)
    for preset in PRESETS:
        if preset.fits(sizes):
            return Chosen(preset.hparams, f"{folder.name}: the published hyperparameters of {preset.name}")
    return _derived(folder.name, sizes)


def sizes_of(folder: ModelFolder) -> Sizes:
    """A model's sizes by its config.json, under any of the names that families have for them."""
    config = folder.config
    text: Mapping[str, Any] = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    depth = _number(text, "num_hidden_layers", "n_layer")
    if depth is None:
        raise BadModelError(
            f"{folder.path / 'config.json'}: does not say how many layers the model has",
            mend="give --hparams with MEMIT's JSON file",
        )
    return Sizes(
        str(config.get("model_type")), depth, _number(text, "hidden_size", "n_embd"), _number(text, "vocab_size")
    )


def _number(config: Mapping[str, Any], *names: str) -> int | None:
    return next((value for name in names if isinstance(value := config.get(name), int)), None)


def _derived(name: str, sizes: Sizes) -> Chosen:
    """The nearest preset's values: of its own type, of the vocabulary nearest in size; else the commonest."""
    same = [preset for preset in PRESETS if preset.model_type == sizes.model_type]
    nearest = min(same, key=lambda each: abs(each.vocabularies[0] - (sizes.vocabulary or 0)), default=COMMONEST)
    layers = scaled_layers(nearest.hparams.layers, nearest.depth, sizes.depth)
    hparams = nearest.hparams.model_copy(update={"layers": layers, "v_loss_layer": sizes.depth - 1})
    span = f"layers {layers[0]}–{layers[-1]}" if len(layers) > 1 else f"layer {layers[0]}"
    note = (
        f"no preset for {name}: derived {span} of {sizes.depth}, where {nearest.name}'s lie,"
        f" and its other values; `collab layers` measures which layers are best"
    )
    return Chosen(hparams, note)


def scaled_layers(layers: tuple[int, ...], depth: int, other: int) -> tuple[int, ...]:
    """Consecutive layers at the same relative depth in a model of `other` blocks; MOST_LAYERS at most, not the last."""
    highest = max(other - 2, 0)
    last = min(round(layers[-1] * other / depth), highest)
    first = max(round(layers[0] * other / depth), last - MOST_LAYERS + 1)
    return tuple(range(min(first, last), last + 1))
