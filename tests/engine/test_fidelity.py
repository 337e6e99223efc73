"""z, keys and Δ of every family, against MEMIT for one edit and one row at a time by full passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import engine_reference
import pytest
import torch
from families import FAMILIES, make_family
from torch import Tensor

from collabedit.client.keys import measure
from collabedit.client.loading import LoadedModel, load_model
from collabedit.client.memit import global_edit
from collabedit.client.metrics import answer
from collabedit.client.targets import find_targets
from collabedit.client.templates import sample_context_templates
from collabedit.client.weights import read_weight
from collabedit.common.architectures import ARCHITECTURES
from collabedit.common.edits import Edit
from collabedit.common.export import export_model
from collabedit.common.hparams import HyperParameters
from collabedit.common.model_folder import ModelFolder
from collabedit.common.prior import Prior

BOUNDS = {torch.float32: 1e-3, torch.float64: 1e-6}
HPARAMS = HyperParameters(
    layers=(1, 2), v_num_grad_steps=7, v_lr=0.5, v_weight_decay=0.1, clamp_norm_factor=0.75, kl_factor=0.0625,
    mom2_update_weight=50.0,
)  # fmt: skip
TEMPLATES = (("{}",), ("The river is long. {}", "Therefore you sang. {}"))
EDITS = tuple(
    Edit(prompt=prompt, subject=subject, target_new=target)
    for prompt, subject, target in (
        ("The mother tongue of {} is", "Danielle Darrieux", "Russian"),
        ("{} plays the", "Toko Yasuda", "river of Madrid"),
        ("Spain, and I, and {} is located in", "日本", "Oslo"),
    )
)
Folders = dict[str, ModelFolder]


@dataclass(frozen=True)
class Errors:
    """Largest relative errors: of z over edits, to ‖z − h0‖; of the keys over edits and layers; of Δ over layers."""

    z: float
    keys: float
    update: float


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """The families' folders, each made when it is first asked for."""

    class Made(Folders):
        def __missing__(self, name: str) -> ModelFolder:
            self[name] = make_family(name, tmp_path_factory.mktemp("family"))
            return self[name]

    return Made()


def furthest(found: Tensor, expected: Tensor, start: Tensor | float = 0.0) -> float:
    """The largest distance of a column, relative to its length from `start`; infinite where one is not finite."""
    distance = ((found - expected).norm(dim=0) / (expected - start).norm(dim=0)).max()
    return float(torch.nan_to_num(distance, nan=torch.inf))


def priors_of(loaded: LoadedModel) -> dict[str, Prior]:
    """A positive definite C for each edited weight, of condition number 1e3."""
    generator = torch.Generator().manual_seed(3)
    made = {}
    for name in loaded.folder.edited_weights(HPARAMS):
        size = loaded.folder.shape(name)[1]
        basis, _ = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator))
        made[name] = Prior(basis @ torch.diag(torch.logspace(-2, 1, size, dtype=torch.float64)) @ basis.T)
    return made


def compare(loaded: LoadedModel) -> Errors:
    """The engine beside the reference: z, the keys of all edited layers, Δ of true MEMIT."""
    slow_z = torch.stack([engine_reference.find_z(loaded, edit, HPARAMS, TEMPLATES)[0] for edit in EDITS], 1)
    targets = find_targets(loaded, EDITS, HPARAMS, TEMPLATES)
    keys = []
    for layer in HPARAMS.layers:
        slow = [engine_reference.key_and_state(loaded, edit, HPARAMS, TEMPLATES, layer) for edit in EDITS]
        measured = measure(loaded, EDITS, HPARAMS, TEMPLATES, layer)
        keys.append(furthest(measured.keys, torch.stack([key for key, _ in slow], 1)))
    start = torch.stack([state for _, state in slow], 1)
    priors = priors_of(loaded)
    slow_updates = engine_reference.memit(loaded, EDITS, slow_z, HPARAMS, TEMPLATES, priors)
    updates = global_edit(loaded, EDITS, targets, HPARAMS, TEMPLATES, priors)
    assert list(updates) == list(slow_updates)
    apart = [furthest(updates[name].reshape(-1, 1), slow_updates[name].reshape(-1, 1)) for name in updates]
    return Errors(furthest(targets.z, slow_z, start), max(keys), max(apart))


@pytest.mark.parametrize("dtype", BOUNDS, ids=["float32", "float64"])
@pytest.mark.parametrize("name", FAMILIES)
def test_fidelity(
    folders: Folders, name: str, dtype: torch.dtype, fidelity_table: dict[tuple[str, torch.dtype], Errors]
) -> None:
    """z, keys and Δ of all layers are those of one edit, one row, one full pass at a time."""
    errors = compare(load_model(folders[name], dtype=dtype))
    fidelity_table[name, dtype] = errors
    assert max(errors.z, errors.keys, errors.update) < BOUNDS[dtype]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_fidelity_of_half_precision(folders: Folders, name: str, dtype: torch.dtype) -> None:
    """A model in half precision gets a finite z in float32, near that of the same weights in float32."""
    small = HPARAMS.model_copy(update={"v_lr": 0.1})  # or a sign that rounding turns in Adam's first steps weighs much
    half = find_targets(load_model(folders[name], dtype=dtype), EDITS, small, TEMPLATES)
    assert half.z.dtype == torch.float32
    assert bool(torch.isfinite(half.z).all())
    exact = find_targets(load_model(folders[name]), EDITS, small, TEMPLATES)
    assert furthest(half.z, exact.z) < 0.2


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_written_to_a_folder_is_loaded_from_it(folders: Folders, name: str, tmp_path: Any) -> None:
    """Edited weights have one name in the model and in the folder, [d_out, d_in] in both, tied heads or not."""
    folder, loaded = folders[name], load_model(folders[name])
    changed = {}
    for weight in folder.edited_weights(HPARAMS):
        assert torch.equal(folder.weight(weight), read_weight(loaded, weight))
        assert folder.shape(weight) == (32, 64)
        changed[weight] = folder.weight(weight) + 1
    export_model(folder, changed.items(), tmp_path / "out", {})
    again = load_model(ModelFolder(tmp_path / "out", "again"))
    assert all(torch.equal(read_weight(again, weight), tensor) for weight, tensor in changed.items())


@pytest.mark.parametrize("name", FAMILIES)
def test_answers_are_those_of_one_pass_each(folders: Folders, name: str) -> None:
    """Scores and sampled templates need nothing of a family but its adapter either."""
    loaded = load_model(folders[name])
    pairs = [(edit.text, edit.target_new) for edit in EDITS]
    slow = [engine_reference.nll(loaded, *pair) for pair in pairs]
    assert [each.nll for each in answer(loaded, pairs)] == pytest.approx(slow, rel=1e-4)
    sampled = sample_context_templates(loaded, 0)
    assert [len(group) for group in sampled] == [1, 5]
    assert sampled == sample_context_templates(loaded, 0)


def test_every_supported_family_is_tried(folders: Folders) -> None:
    """No adapter is without its model here, and every module that it names is there."""
    tried = {folders[name].architecture.model_types for name in FAMILIES}
    assert tried == {each.model_types for each in ARCHITECTURES}
    for name in FAMILIES:
        loaded = load_model(folders[name])
        adapter = loaded.architecture
        named = [adapter.blocks, adapter.embeddings, adapter.lm_head]
        named += [] if name == "opt, norm behind" else [adapter.final_norm]
        named += [each.format(4) for each in (adapter.rewrite_module, adapter.attention, adapter.feed_forward)]
        assert all(loaded.module(module) is not None for module in named)
        assert loaded.longest == 96
