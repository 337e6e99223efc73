from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from collabedit.common.contribution import Dense, Factored, Metadata
from collabedit.common.contribution_file import ContributionFile, write_contribution
from collabedit.common.errors import BadFileError, ContributionError

W = "h.9.mlp.c_proj.weight"


@pytest.mark.wheel
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("encoding", ["factored", "dense"])
def test_what_is_written_is_read(contribution, saved, encoding, dtype):
    """Layers in their order, tensors to the bit, metadata."""
    wrote, read = contribution(encoding, dtype), ContributionFile.open(saved(encoding, dtype))
    assert read.weights == ("h.9.mlp.c_proj.weight", "h.10.mlp.c_proj.weight")
    for weight in read.weights:
        a, b = wrote.layer(weight), read.layer(weight)
        assert type(a) is type(b)
        assert torch.equal(a.kkt(), b.kkt())
        if encoding == "dense":
            assert torch.equal(a.delta, b.delta)
        else:
            assert torch.equal(a.residual_factor, b.residual_factor)
    assert read.metadata.model_fingerprint == "sha256:m"
    assert read.metadata.edits == 10
    assert read.metadata.encoding == encoding
    assert f"torch.{read.metadata.dtype}" == str(dtype)
    assert read.read().weights == read.weights


def test_the_names_are_those_of_the_format(saved):
    """`{weight}.residual_factor` and `{weight}.kkt_factor`, or `{weight}.delta` and `{weight}.kkt_triangle`."""
    factored, dense = load_file(saved("factored")), load_file(saved("dense"))
    assert {n.removeprefix(f"{W}.") for n in factored if n.startswith(W)} == {"residual_factor", "kkt_factor"}
    assert {n.removeprefix(f"{W}.") for n in dense if n.startswith(W)} == {"delta", "kkt_triangle"}
    assert factored[f"{W}.residual_factor"].shape == (12, 10)
    assert factored[f"{W}.kkt_factor"].shape == (24, 10)
    assert dense[f"{W}.delta"].shape == (12, 24)
    assert dense[f"{W}.kkt_triangle"].shape == (300,)


def test_a_dense_layer_may_be_written_in_full(tmp_path, contribution, saved):
    """`{weight}.kkt`, [d_in, d_in], from S in full or from a triangle: the same bits either way."""
    made, read = contribution("dense"), ContributionFile.open(saved("dense")).read()
    for name, layers in (("a", made.layers), ("b", read.layers)):
        write_contribution(tmp_path / name, layers, made.metadata, packed=False)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert torch.equal(load_file(tmp_path / "a")[f"{W}.kkt"], made.layer(W).kkt_matrix)
    assert ContributionFile.open(tmp_path / "a").layer(W).kkt_matrix.shape == (24, 24)


def test_equal_contributions_are_equal_files(tmp_path, contribution):
    """The same bits: an upload that is repeated has the same address."""
    for name in ("a", "b"):
        write_contribution(tmp_path / name, contribution().layers, contribution().metadata)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_file_from_elsewhere_may_say_nothing(tmp_path):
    """Without metadata every field is None; other tools' keys do not matter."""
    path = tmp_path / "x.safetensors"
    save_file({f"{W}.delta": torch.ones(2, 3), f"{W}.kkt": torch.eye(3)}, path, metadata={"format": "pt"})
    read = ContributionFile.open(path)
    assert read.metadata == Metadata()
    assert isinstance(read.layer(W), Dense)


def test_encodings_may_differ_by_layer(tmp_path):
    """A file may hold one layer dense and another factored."""
    path = tmp_path / "x.safetensors"
    layers = {"a": Dense(torch.ones(2, 3), torch.eye(3)), "b": Factored(torch.ones(2, 1), torch.ones(3, 1))}
    write_contribution(path, layers, Metadata())
    read = ContributionFile.open(path)
    assert [read.layer(w).encoding for w in read.weights] == ["dense", "factored"]
    assert read.metadata.encoding is None


ONE, L = torch.ones(2, 3), torch.ones(3, 3)
BAD = {
    "unknown tensor": ({"w.delta": ONE, "w.kkt": L, "w.keys": L}, r"w\.keys"),
    "a tensor without a weight's name": ({"delta": ONE}, "unknown tensor delta"),
    "half a dense layer": ({"w.delta": ONE}, r"w has delta; a layer is"),
    "half a factored layer": ({"w.kkt_factor": L}, r"w has kkt_factor; a layer is"),
    "both forms of S": ({"w.delta": ONE, "w.kkt": L, "w.kkt_triangle": torch.ones(6)}, "w has"),
    "two encodings of one layer": ({"w.delta": ONE, "w.kkt": L, "w.residual_factor": ONE, "w.kkt_factor": L}, "w has"),
    "halves of two encodings": ({"w.delta": ONE, "w.kkt_factor": L}, "w has delta, kkt_factor"),
    "ranks that differ": ({"w.residual_factor": ONE, "w.kkt_factor": torch.ones(3, 2)}, "do not fit"),
    "a kkt that is not square": ({"w.delta": ONE, "w.kkt": torch.ones(3, 2)}, "do not fit"),
    "a kkt of another size": ({"w.delta": ONE, "w.kkt": torch.ones(2, 2)}, "do not fit"),
    "a triangle of another size": ({"w.delta": ONE, "w.kkt_triangle": torch.ones(5)}, "do not fit"),
    "a triangle that is a matrix": ({"w.delta": ONE, "w.kkt_triangle": L}, "not that of a triangle"),
    "a vector": ({"w.delta": torch.ones(3), "w.kkt": L}, "not that of a matrix"),
    "no columns": ({"w.residual_factor": torch.ones(2, 0), "w.kkt_factor": torch.ones(3, 0)}, "not that of a matrix"),
    "bfloat16": ({"w.delta": ONE.bfloat16(), "w.kkt": L.bfloat16()}, "BF16"),
    "whole numbers": ({"w.delta": ONE.long(), "w.kkt": L.long()}, "I64"),
    "two dtypes": ({"w.delta": ONE, "w.kkt": L.double()}, "differ in dtype"),
    "no tensors": ({}, "no tensors"),
}


@pytest.mark.parametrize(("tensors", "said"), BAD.values(), ids=BAD)
def test_what_is_no_contribution_is_refused_by_name(tmp_path, tensors, said):
    """The error names the file and the tensor, and the mend."""
    path = tmp_path / "x.safetensors"
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path)
    with pytest.raises(BadFileError, match=said) as caught:
        ContributionFile.open(path)
    assert str(path) in caught.value.what
    assert caught.value.mend


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"edits": "many"}, "metadata edits"),
        ({"spread": "wide"}, "metadata spread"),
        ({"format_version": "2"}, "version 2"),
        ({"model_fingerprint": "a\nb"}, "metadata model_fingerprint"),
    ],
)
def test_metadata_that_cannot_be_is_refused(tmp_path, metadata, said):
    """By the field's name; a newer format by its version."""
    path = tmp_path / "x.safetensors"
    save_file({"w.delta": ONE, "w.kkt": L}, path, metadata=metadata)
    with pytest.raises(BadFileError, match=said):
        ContributionFile.open(path)


def test_a_layer_that_is_not_there_is_named(saved):
    """Asking for a layer that the file lacks."""
    with pytest.raises(ContributionError, match=r"h\.11"):
        ContributionFile.open(saved()).layer("h.11.mlp.c_proj.weight")
