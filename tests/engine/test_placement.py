"""Models that accelerate spreads over memory and disk: the engine finds on them what it finds on a whole one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families import make_family
from test_fidelity import EDITS, HPARAMS, TEMPLATES, furthest, priors_of

from collabedit.client.covariance import measure_covariance
from collabedit.client.keys import measure_layers
from collabedit.client.loading import LoadedModel, load_model
from collabedit.client.memit import global_edit
from collabedit.client.metrics import answer
from collabedit.client.placement import working_device
from collabedit.client.targets import find_targets
from collabedit.client.weights import add_update, read_weight, restored, weights_digest, write_weight
from collabedit.common.errors import UsageError
from collabedit.common.fingerprint import model_fingerprint
from collabedit.common.model_folder import ModelFolder

FOLDERS = ("gpt2", "llama 2", "gptj", "gemma2", "opt, norm behind")
PAIRS = [(edit.text, edit.target_new) for edit in EDITS]


@pytest.fixture(scope="module", params=FOLDERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """A tiny model of a family, heads tied and not."""
    return make_family(request.param, tmp_path_factory.mktemp("placed"))


def spread_over(folder: ModelFolder) -> dict[str, str]:
    """A device_map: all in memory but three blocks of five, among them an edited one, the z layer's and one above."""
    model, adapter = load_model(folder).model, folder.architecture
    outside = {name.rpartition(".")[0] for name, _ in model.named_parameters() if not name.startswith(adapter.blocks)}
    places = {adapter.layer_module.format(index): "disk" if index in (1, 2, 4) else "cpu" for index in range(5)}
    return dict.fromkeys({*outside, adapter.lm_head}, "cpu") | places


@pytest.fixture
def spread(folder: ModelFolder) -> LoadedModel:
    """The model with blocks 1, 2 and 4 of 5 on disk."""
    return load_model(folder, device=spread_over(folder))


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """‖found − expected‖ / ‖expected‖."""
    return furthest(found.reshape(-1, 1).double(), expected.reshape(-1, 1).double())


def test_what_is_found_is_found_on_a_whole_model(folder: ModelFolder, spread: LoadedModel) -> None:
    """z, keys, states, C0, answers and Δ of all layers are the whole model's; offloaded blocks are not in memory."""
    whole = load_model(folder)
    assert whole.rewrite_module(HPARAMS, 2).weight.device.type == "cpu"
    assert spread.rewrite_module(HPARAMS, 2).weight.device.type == "meta"
    assert spread.rewrite_module(HPARAMS, 3).weight.device.type == "cpu"
    targets, expected = (find_targets(each, EDITS, HPARAMS, TEMPLATES) for each in (spread, whole))
    assert distance(targets.z, expected.z) < 1e-5
    found, measured = (measure_layers(each, EDITS, HPARAMS, TEMPLATES, (1, 2)) for each in (spread, whole))
    for layer in (1, 2):
        assert distance(found[layer].keys, measured[layer].keys) < 1e-6
        assert distance(found[layer].states, measured[layer].states) < 1e-6
    texts = ["The river is long, and Toko sang.", "Spain and Norway"]
    moments, slow = (measure_covariance(each, texts, (1, 2)).moments for each in (spread, whole))
    assert all(distance(moments[name].mean(), slow[name].mean()) < 1e-6 for name in slow)
    assert [each.nll for each in answer(spread, PAIRS)] == pytest.approx([each.nll for each in answer(whole, PAIRS)])
    priors = priors_of(whole)
    updates = global_edit(spread, EDITS, targets, HPARAMS, TEMPLATES, priors)
    for name, update in global_edit(whole, EDITS, expected, HPARAMS, TEMPLATES, priors).items():
        assert distance(updates[name], update) < 1e-4


def test_a_weight_that_is_written_is_seen_by_the_next_pass(folder: ModelFolder, spread: LoadedModel) -> None:
    """An offloaded weight reads, changes and is restored like any other, and the model's files stay as they were."""
    before, whole = model_fingerprint(folder), load_model(folder)
    names = folder.edited_weights(HPARAMS)
    assert weights_digest(spread, names) == weights_digest(whole, names)
    plain = answer(spread, PAIRS)
    with restored(spread, names):
        for loaded in (spread, whole):
            for name in names:
                add_update(loaded, name, torch.full((32, 64), 0.05))
        changed = answer(spread, PAIRS)
        assert [each.nll for each in changed] == pytest.approx([each.nll for each in answer(whole, PAIRS)])
        assert changed != plain
    assert answer(spread, PAIRS) == plain
    write_weight(spread, names[0], torch.zeros(32, 64))
    assert not read_weight(spread, names[0]).any()
    assert model_fingerprint(ModelFolder(folder.path, "again")) == before


def test_inputs_go_where_the_embeddings_compute(spread: LoadedModel) -> None:
    """Also where a module's weights are on disk between passes."""
    assert spread.device == torch.device("cpu")
    assert working_device(spread.rewrite_module(HPARAMS, 2)) == torch.device("cpu")


def test_auto_is_a_whole_model_where_there_is_one_device(folder: ModelFolder) -> None:
    """accelerate chooses the places; on a machine without GPUs all of a small model is in memory."""
    loaded = load_model(folder, device="auto")
    assert find_targets(loaded, EDITS[:1], HPARAMS, TEMPLATES).z.shape == (32, 1)


@pytest.mark.parametrize(("asked", "held"), [("bfloat16", torch.bfloat16), ("float64", torch.float64)])
def test_a_dtype_may_be_named(folder: ModelFolder, asked: Any, held: torch.dtype) -> None:
    """By its name, and `auto` for the folder's own."""
    assert load_model(folder, dtype=asked).dtype == held
    assert load_model(folder, dtype="auto").dtype == torch.float32


def test_a_folders_own_dtype_is_kept(folder: ModelFolder, tmp_path: Path) -> None:
    """A folder saved in bfloat16 is loaded so by `auto`, and widened by default."""
    load_model(folder, dtype="bfloat16").model.save_pretrained(tmp_path)
    load_model(folder).tokenizer.save_pretrained(tmp_path)
    half = ModelFolder(tmp_path, "half")
    assert load_model(half, dtype="auto").dtype == torch.bfloat16
    assert load_model(half).dtype == torch.float32


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_told(folder: ModelFolder, device: str) -> None:
    """In one line, with what may be asked for."""
    with pytest.raises(UsageError, match=f"device {device}") as caught:
        load_model(folder, device=device)
    assert "\n" not in caught.value.what
