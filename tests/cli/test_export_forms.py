"""A version as a patch file and as a PEFT adapter: what each is worth, and when it is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from collabedit.common.adapter import TENSORS, demand_worth, low_rank
from collabedit.common.errors import ExitCode, UsageError
from collabedit.common.fingerprint import model_fingerprint
from collabedit.common.model_folder import ModelFolder
from collabedit.common.tensor_file import TensorFile, write_tensors


def make_llama(folder: Path) -> Path:
    """A random Llama whose edited weights are plain linear layers; no tokenizer."""
    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=100, hidden_size=32, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(params=["gpt2", "llama"])
def edited(request, kit, tmp_path: Path) -> tuple[ModelFolder, dict[str, Tensor]]:
    """A base model, stored transposed or not, and its edited weights after updates of rank 3 and 5."""
    if request.param == "gpt2":
        base, names = ModelFolder(kit.make_folder(tmp_path / "base"), "base"), kit.weights
    else:
        base = ModelFolder(make_llama(tmp_path / "base"), "base")
        names = tuple(f"model.layers.{layer}.mlp.down_proj.weight" for layer in (0, 2))
    generator = torch.Generator().manual_seed(1)
    weights = {}
    for name, rank in zip(names, (3, 5), strict=True):
        d_out, d_in = base.shape(name)
        left, right = (torch.randn(*shape, generator=generator) for shape in ((d_out, rank), (rank, d_in)))
        weights[name] = base.weight(name).double() + 0.02 * (left @ right).double()
    return base, weights


@pytest.fixture
def merged(edited, tmp_path: Path) -> Path:
    """The edited weights as `collab merge` writes them: float64."""
    base, weights = edited
    write_tensors(tmp_path / "merged.safetensors", weights, {"model_fingerprint": model_fingerprint(base)})
    return tmp_path / "merged.safetensors"


@pytest.fixture
def exported(collab, edited, merged: Path, tmp_path: Path) -> Callable[..., Path]:
    """Runs `collab export` of the edited weights in a form; returns what it made."""

    def export(form: str, *flags: object, weights: Path = merged) -> Path:
        out = tmp_path / f"{form}-{len(list(tmp_path.iterdir()))}"
        command = ("export", "--weights", weights, "--model", edited[0].path, "--form", form, "--out", out)
        ran = collab(*command, *flags, "--json")
        assert ran.code == 0, ran.err
        assert ran.json["form"] == form
        assert ran.json["weights"] == list(edited[1])
        return out

    return export


def test_an_adapter_answers_as_the_exported_model_does(edited, exported) -> None:
    """PEFT loads it onto the base model; the logits are the exported folder's to float32's rounding."""
    base, _ = edited
    adapter, folder = exported("peft"), exported("folder")
    adapted = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base.path), str(adapter))
    tokens = torch.arange(2, 62).reshape(3, 20)
    with torch.no_grad():
        before = AutoModelForCausalLM.from_pretrained(base.path)(tokens).logits
        wanted = AutoModelForCausalLM.from_pretrained(folder)(tokens).logits
        found = adapted(tokens).logits
    assert float((wanted - before).abs().max()) > 0.1
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5 * float(wanted.abs().max()))


def test_an_adapter_has_the_updates_rank_and_not_the_roundings(collab, edited, merged: Path, tmp_path: Path) -> None:
    """Ranks 3 and 5, though W_N − W_0 in float32 has full rank; the file is smaller than the weights."""
    base, weights = edited
    command = ("export", "--weights", merged, "--model", base.path, "--form", "peft", "--out", tmp_path / "a", "--json")
    ran = collab(*command)
    assert ran.json["ranks"] == [3, 5]
    tensors = load_file(tmp_path / "a" / TENSORS)
    assert sorted(tensor.shape for tensor in tensors.values()) == sorted(
        shape
        for name, rank in zip(weights, (3, 5), strict=True)
        for shape in ((base.shape(name)[0], rank), (rank, base.shape(name)[1]))
    )
    difference = weights[next(iter(weights))].float() - base.weight(next(iter(weights)))
    assert int(torch.linalg.matrix_rank(difference.double())) == min(difference.shape)


def test_a_patch_makes_the_same_folder_to_the_bit(collab, edited, exported, tmp_path: Path) -> None:
    """Weights in the model's own dtype, with what they belong to; applied to the base, byte for byte the export."""
    base, weights = edited
    patch, folder = exported("patch"), exported("folder")
    tensors = TensorFile.open(patch)
    assert {name: (tensors.dtype(name), tensors.shape(name)) for name in tensors.names} == {
        name: ("F32", base.shape(name)) for name in weights
    }
    assert tensors.metadata["model_fingerprint"] == model_fingerprint(base)
    again = exported("folder", weights=patch)
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    other = make_llama(tmp_path / "other") if base.architecture.transposed else base.path
    if other != base.path:
        ran = collab("export", "--weights", patch, "--model", other, "--out", tmp_path / "x")
        assert ran.code == ExitCode.MISMATCH, ran.err


def test_an_adapter_that_does_not_pay_is_refused_with_ranks_and_sizes(collab, kit, tmp_path: Path) -> None:
    """A rank at which the factors are no smaller than the weights; a greater tolerance may do."""
    base = ModelFolder(kit.make_folder(tmp_path / "base"), "base")
    name = kit.weights[0]
    noise = torch.randn(base.shape(name), generator=torch.Generator().manual_seed(0))
    write_tensors(tmp_path / "full", {name: base.weight(name) + 0.01 * noise})
    command = (
        "export",
        "--weights",
        tmp_path / "full",
        "--model",
        base.path,
        "--form",
        "peft",
        "--out",
        tmp_path / "a",
    )
    ran = collab(*command)
    assert ran.code == ExitCode.USAGE, ran.err
    assert f"rank 32 of 32 ({name})" in ran.err
    assert "an adapter has 20,480 bytes, a patch 16,384" in ran.err
    assert "--form patch" in ran.err
    assert not (tmp_path / "a").exists()
    assert collab(*command, "--tolerance", 0.15).code == 0
    ran = collab(*command[:-4], "--out", tmp_path / "b", "--tolerance", 0.08)
    assert ran.code == ExitCode.USAGE, ran.err
    assert "--tolerance goes with --form peft" in ran.err


def test_the_base_model_is_no_patch_and_no_adapter(collab, kit, tmp_path: Path) -> None:
    """Weights that are the base's: the adapter says so."""
    base = ModelFolder(kit.make_folder(tmp_path / "base"), "base")
    same = low_rank(kit.weights[0], base.weight(kit.weights[0]), base.weight(kit.weights[0]))
    assert same.rank == 0
    with pytest.raises(UsageError, match="are the base model's"):
        demand_worth([same])


def test_weights_of_another_shape_are_named(collab, kit, tmp_path: Path) -> None:
    """Whatever the form, a file that does not fit the model is refused by the tensor's name."""
    base = ModelFolder(kit.make_folder(tmp_path / "base"), "base")
    write_tensors(tmp_path / "bad", {kit.weights[0]: torch.zeros(3, 4)})
    for form in ("folder", "patch", "peft"):
        command = ("export", "--weights", tmp_path / "bad", "--model", base.path, "--form", form)
        ran = collab(*command, "--out", tmp_path / "out")
        assert ran.code == ExitCode.BAD_FILE, ran.err
        assert kit.weights[0] in ran.err


@given(rank=st.integers(0, 6), size=st.floats(1e-3, 1.0), dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_what_an_adapter_leaves_out_is_within_the_tolerance(rank: int, size: float, dtype: torch.dtype) -> None:
    """‖(W_N − W_0) − B A‖ ≤ ε ‖W_N‖ at the smallest rank that does it, never more than the update's own."""
    generator = torch.Generator().manual_seed(rank)
    before = torch.randn(24, 40, generator=generator).to(dtype)
    update = torch.randn(24, rank, generator=generator) @ torch.randn(rank, 40, generator=generator)
    after = before.double() + size * update.double()
    found = low_rank("w", before, after)
    assert found.rank <= rank
    stored = after.to(dtype).double()
    remainder = stored - before.double() - found.lora_B.double() @ found.lora_A.double()
    assert float(remainder.norm()) <= 1.01 * torch.finfo(dtype).eps * float(stored.norm())
