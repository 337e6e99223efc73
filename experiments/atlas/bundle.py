"""Writes the folder that the package ships: the model, its C0, its presets, its templates, its facts and edit files."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from collabedit.client.covariance import measure_covariance
from collabedit.client.loading import LoadedModel, load_model
from collabedit.client.templates import sample_context_templates
from collabedit.common.covariance_file import CovarianceMetadata, write_covariance
from collabedit.common.hparams import HyperParameters
from collabedit.common.model_folder import ModelFolder
from collabedit.experiments.atlas.edits import TEN, THREE, deal, write_parties
from collabedit.experiments.atlas.text import general_text
from collabedit.experiments.atlas.world import World

TEXT_SEED: Final = 1
TEMPLATES_SEED: Final = 0
WEIGHTS: Final = "model.safetensors"
COVARIANCE: Final = "covariance.safetensors"


def hyperparameters(layers: tuple[int, ...], blocks: int, samples: int) -> dict[str, Any]:
    """The bundle's preset, under MEMIT's own names; chosen by scans on the ten-party edit files."""
    return {
        "alg_name": "MEMIT",
        "model_name": "atlas",
        "layers": list(layers),
        "clamp_norm_factor": 4,
        "layer_selection": "all",
        "fact_token": "subject_last",
        "v_num_grad_steps": 20,
        "v_lr": 0.5,
        "v_loss_layer": blocks - 1,
        "v_weight_decay": 0.001,
        "kl_factor": 0.0625,
        "mom2_adjustment": True,
        "mom2_update_weight": 1000,
        "rewrite_module_tmp": "transformer.h.{}.mlp.c_proj",
        "layer_module_tmp": "transformer.h.{}",
        "mlp_module_tmp": "transformer.h.{}.mlp",
        "attn_module_tmp": "transformer.h.{}.attn",
        "ln_f_module": "transformer.ln_f",
        "lm_head_module": "transformer.wte",
        "mom2_dataset": "atlas",
        "mom2_n_samples": samples,
        "mom2_dtype": "float32",
    }


def save_model(folder: Path, model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, edited: Iterable[int]) -> None:
    """A normal Hugging Face folder. To stay small, every tensor but the edited matrices is stored in float16.

    config.json says float32, so that a model is float32 once it is loaded; the edited matrices lose nothing on disk,
    for an update to them is small.
    """
    model.config.dtype = torch.float32
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    kept = tuple(f"transformer.h.{layer}.mlp.c_proj.weight" for layer in edited)
    tensors = load_file(folder / WEIGHTS)
    stored = {name: tensor if name in kept else tensor.half() for name, tensor in tensors.items()}
    save_file(stored, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)
    _make_portable(folder / "tokenizer_config.json")


def _make_portable(path: Path) -> None:
    """Names the tokenizer's class as every transformers release knows it, and leaves out where it was saved."""
    kept = ("bos_token", "eos_token", "pad_token", "model_max_length", "clean_up_tokenization_spaces")
    config = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, {"tokenizer_class": "PreTrainedTokenizerFast", **{name: config[name] for name in kept}})


def write_preset(folder: Path, world: World, layers: tuple[int, ...]) -> None:
    """hparams.json, then what is measured with it: covariance.safetensors and context_templates.json."""
    blocks = json.loads((folder / "config.json").read_text(encoding="utf-8"))["n_layer"]
    texts = list(general_text(world, TEXT_SEED))
    preset = hyperparameters(layers, blocks, len(texts))
    write_json(folder / "hparams.json", preset)
    loaded = load_model(ModelFolder(folder, folder.name))
    write_moments(folder / COVARIANCE, loaded, texts, HyperParameters.model_validate(preset))
    write_json(folder / "context_templates.json", sample_context_templates(loaded, TEMPLATES_SEED))


def write_moments(path: Path, loaded: LoadedModel, texts: list[str], hparams: HyperParameters) -> None:
    """C0 of each edited layer over the world's text, float32: [d_in, d_in]."""
    measured = measure_covariance(loaded, texts, hparams.layers)
    said = CovarianceMetadata(
        model_fingerprint=loaded.fingerprint,
        text=f"general text of the atlas's world: {len(texts)} documents, seed {TEXT_SEED}",
        tokens=measured.tokens,
    )
    write_covariance(path, {name: moment.mean().float() for name, moment in measured.moments.items()}, said)


def write_edits(folder: Path, world: World) -> None:
    """edits/three and edits/ten."""
    for each in (THREE, TEN):
        write_parties(folder / "edits" / each.name, deal(world, each))


def write_facts(path: Path, world: World) -> None:
    """Every fact, one a line; the phrasings can be read in `relations.py` of the generator."""
    lines = (
        json.dumps({"subject": fact.subject, "relation_id": fact.relation_id, "object": fact.object})
        for fact in world.facts
    )
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    """A JSON file, indented, with a newline at its end."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
