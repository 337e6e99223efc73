"""Hyperparameters chosen for a model: its folder's, the published, the derived."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collabedit.common.errors import BadFileError, BadModelError
from collabedit.common.model_folder import ModelFolder
from collabedit.common.presets import MOST_LAYERS, PRESETS, choose_hparams, scaled_layers

LLAMA = {"model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096}
KNOWN: dict[str, dict[str, Any]] = {
    "gpt2-xl": {"model_type": "gpt2", "n_layer": 48, "n_embd": 1600, "vocab_size": 50257},
    "gpt-j-6b": {"model_type": "gptj", "n_layer": 28, "n_embd": 4096, "vocab_size": 50400},
    "llama-3-8b": {**LLAMA, "vocab_size": 128256},
    "llama-2-7b": {**LLAMA, "vocab_size": 32000},
    "mistral-7b": {**LLAMA, "model_type": "mistral", "vocab_size": 32768},
    "qwen2-7b": {"model_type": "qwen2", "num_hidden_layers": 28, "hidden_size": 3584, "vocab_size": 152064},
}
# algorithm's table: layers, steps, lr, wd, clamp, λ, loss layer
TABLE: dict[str, tuple[Any, ...]] = {
    "gpt2-xl": ((13, 14, 15, 16, 17), 20, 0.5, 0.5, 0.75, 20_000, 47),
    "gpt-j-6b": ((3, 4, 5, 6, 7, 8), 25, 0.5, 0.5, 0.75, 15_000, 27),
    "llama-3-8b": ((4, 5, 6, 7, 8), 25, 0.1, 0.5, 0.75, 15_000, 31),
    "llama-2-7b": ((4, 5, 6, 7, 8), 25, 0.5, 1e-3, 4, 15_000, 31),
    "mistral-7b": ((4, 5, 6, 7, 8), 25, 0.5, 1e-3, 4, 15_000, 31),
    "qwen2-7b": ((4, 5, 6, 7, 8), 25, 0.5, 1e-3, 4, 15_000, 27),
}


def folder_of(path: Path, config: dict[str, Any]) -> ModelFolder:
    """A folder with nothing in it but a config, under a name that says nothing."""
    (path / "config.json").write_text(json.dumps(config))
    return ModelFolder(path, "mine")


@pytest.mark.wheel
@pytest.mark.parametrize("name", KNOWN)
def test_published_hyperparameters_are_found_by_the_models_sizes(tmp_path: Path, name: str) -> None:
    """Whatever its folder is called, a model of a published one's sizes gets that one's values, and says so."""
    chosen = choose_hparams(folder_of(tmp_path, KNOWN[name]))
    h = chosen.hparams
    found = (h.layers, h.v_num_grad_steps, h.v_lr, h.v_weight_decay, h.clamp_norm_factor, h.mom2_update_weight)
    assert (*found, h.v_loss_layer) == TABLE[name]
    assert h.kl_factor == 0.0625
    assert chosen.note == f"mine: the published hyperparameters of {name}"


def test_the_table_here_is_all_there_is() -> None:
    """No preset is without its row above."""
    assert {preset.name for preset in PRESETS} == set(KNOWN) == set(TABLE)


def test_a_folders_own_hyperparameters_come_first(tmp_path: Path) -> None:
    """hparams.json is taken even for a model that has a published preset, without a word; MEMIT's other keys stay."""
    folder = folder_of(tmp_path, KNOWN["gpt2-xl"])
    own = {**PRESETS[0].hparams.model_dump(), "v_lr": 0.25, "mom2_dataset": "wikipedia"}
    (tmp_path / "hparams.json").write_text(json.dumps(own))
    chosen = choose_hparams(folder)
    assert (chosen.hparams.v_lr, chosen.note) == (0.25, "")
    assert chosen.hparams.model_dump()["mom2_dataset"] == "wikipedia"
    (tmp_path / "hparams.json").write_text('{"layers": [3, 1]}')
    with pytest.raises(BadFileError, match=r"hparams\.json: layers"):
        choose_hparams(folder)


@pytest.mark.parametrize(
    ("config", "nearest", "layers"),
    [
        ({"model_type": "gpt2", "n_layer": 36, "n_embd": 1280, "vocab_size": 50257}, "gpt2-xl", (10, 11, 12, 13)),
        ({"model_type": "gpt2", "n_layer": 12, "n_embd": 768, "vocab_size": 50257}, "gpt2-xl", (3, 4)),
        ({**LLAMA, "num_hidden_layers": 16, "vocab_size": 128256}, "llama-3-8b", (2, 3, 4)),
        ({**LLAMA, "num_hidden_layers": 80, "vocab_size": 32000}, "llama-2-7b", (15, 16, 17, 18, 19, 20)),
        ({"model_type": "gemma2", "num_hidden_layers": 26, "vocab_size": 256000}, "llama-2-7b", (3, 4, 5, 6)),
        ({"model_type": "gemma3", "text_config": {"num_hidden_layers": 34}}, "llama-2-7b", (4, 5, 6, 7, 8)),
        ({"model_type": "gpt_neox", "num_hidden_layers": 1}, "llama-2-7b", (0,)),
    ],
)
def test_other_models_get_derived_ones_and_are_told(
    tmp_path: Path, config: dict[str, Any], nearest: str, layers: tuple[int, ...]
) -> None:
    """Layers at the same relative depth as the nearest preset's, its other values, the loss at the last layer."""
    chosen = choose_hparams(folder_of(tmp_path, config))
    depth = config.get("num_hidden_layers") or config.get("n_layer") or config["text_config"]["num_hidden_layers"]
    model = next(preset.hparams for preset in PRESETS if preset.name == nearest)
    assert chosen.hparams == model.model_copy(update={"layers": layers, "v_loss_layer": depth - 1})
    span = f"layers {layers[0]}–{layers[-1]}" if depth > 1 else "layer 0"
    assert f"derived {span} of {depth}, where {nearest}'s lie" in chosen.note
    assert "collab layers" in chosen.note


def test_a_config_without_a_depth_is_told(tmp_path: Path) -> None:
    """Nothing can be derived for a model of unknown depth: the error names the file."""
    with pytest.raises(BadModelError, match=r"config\.json: does not say how many layers"):
        choose_hparams(folder_of(tmp_path, {"model_type": "gpt2"}))


@given(st.sampled_from(PRESETS), st.integers(1, 300))
def test_derived_layers_are_layers(preset: Any, depth: int) -> None:
    """Consecutive, some, not too many, inside the model, with a block above the last wherever there is one."""
    layers = scaled_layers(preset.hparams.layers, preset.depth, depth)
    assert 1 <= len(layers) <= MOST_LAYERS
    assert layers == tuple(range(layers[0], layers[-1] + 1))
    assert layers[0] >= 0
    assert layers[-1] < max(depth - 1, 1)
    assert scaled_layers(preset.hparams.layers, preset.depth, preset.depth) == preset.hparams.layers
