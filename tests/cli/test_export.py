"""Model folders with other weights in them: single files and shards, whatever the dtype."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from collabedit.common.errors import BadFileError, BadModelError, ExitCode
from collabedit.common.export import export_model
from collabedit.common.model_folder import ModelFolder


@pytest.mark.parametrize("sharded", [False, True], ids=["single", "sharded"])
def test_an_export_is_the_base_plus_the_update(kit, tmp_path: Path, sharded: bool) -> None:
    """transformers loads it; edited weights are W + Δ in the family's orientation, every other tensor is the base's."""
    base = ModelFolder(kit.make_folder(tmp_path / "base", sharded=sharded), "base")
    assert (len(set(base.files.values())) > 1) == sharded
    generator = torch.Generator().manual_seed(1)
    updates = {name: torch.randn(base.shape(name), generator=generator, dtype=torch.float64) for name in kit.weights}
    merged = ((name, base.weight(name).double() + update) for name, update in updates.items())
    names = export_model(base, merged, tmp_path / "out", {"model": "base"})
    assert names == kit.weights
    before = AutoModelForCausalLM.from_pretrained(base.path).state_dict()
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    for name, tensor in after.items():
        expected = (before[name].double() + updates[name].T).float() if name in updates else before[name]
        assert torch.equal(tensor, expected), name
    asked = "The capital of Norway"
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "out")(asked)["input_ids"]
        == AutoTokenizer.from_pretrained(base.path)(asked)["input_ids"]
    )


def test_an_export_keeps_the_base_dtype_and_leaves_stale_files_out(kit, tmp_path: Path) -> None:
    """A bfloat16 model stays one; the base's covariance and weights in other formats do not come along."""
    path = kit.make_folder(tmp_path / "base")
    save_file(
        {name: t.bfloat16() for name, t in load_file(path / "model.safetensors").items()}, path / "model.safetensors"
    )
    (path / "pytorch_model.bin").write_bytes(b"stale")
    base = ModelFolder(path, "base")
    export_model(base, [(kit.weights[0], torch.ones(base.shape(kit.weights[0])))], tmp_path / "out", {})
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert bool((ModelFolder(tmp_path / "out", "out").weight(kit.weights[0]) == 1).all())
    left_out = {"pytorch_model.bin", "covariance.safetensors"}
    assert not left_out & {each.name for each in (tmp_path / "out").iterdir()}
    assert (tmp_path / "out" / "hparams.json").is_file()


def test_a_weight_that_does_not_fit_leaves_nothing_behind(kit, tmp_path: Path) -> None:
    """Another shape, a number that is not finite, an unknown name: the folder does not appear."""
    base = ModelFolder(kit.make_folder(tmp_path / "base"), "base")
    bad = base.weight(kit.weights[0]).clone()
    bad[3, 4] = float("inf")
    for name, weight, error in (
        (kit.weights[0], torch.zeros(3, 3), BadFileError),
        (kit.weights[0], bad, BadFileError),
        ("no.such.weight", bad, BadModelError),
    ):
        with pytest.raises(error):
            export_model(base, [(kit.weights[1], base.weight(kit.weights[1])), (name, weight)], tmp_path / "out", {})
    assert [each.name for each in tmp_path.iterdir()] == ["base"]


def test_merged_weights_are_exported_without_a_server(
    collab, model_folder: Path, edits_file: Path, tmp_path: Path
) -> None:
    """edit → merge → export --weights → eval of the folder equals eval with the weights."""
    contribution, merged, out = (tmp_path / name for name in ("c.safetensors", "m.safetensors", "edited"))
    assert collab("edit", "--model", model_folder, "--edits", edits_file, "--out", contribution).code == 0
    assert collab("merge", "--model", model_folder, "--out", merged, contribution).code == 0
    ran = collab("export", "--weights", merged, "--model", model_folder, "--out", out)
    assert ran.code == 0, ran.err
    direct = collab("eval", "--model", model_folder, "--weights", merged, "--records", edits_file, "--json").json
    exported = collab("eval", "--model", out, "--records", edits_file, "--json").json
    assert {**exported, "model": ""} == {**direct, "model": ""}
    ran = collab("export", "--weights", merged, "--out", tmp_path / "again")
    assert ran.code == ExitCode.USAGE
    assert "--model" in ran.err
