from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from collabedit.common.covariance_file import CovarianceFile, CovarianceMetadata, write_covariance
from collabedit.common.errors import BadFileError

W = "h.3.mlp.c_proj.weight"


@pytest.mark.wheel
def test_what_is_written_is_read(tmp_path, make):
    """The means in float64, and what was measured on what."""
    path, mean = tmp_path / "C0.safetensors", make.spd(6, 10.0, torch.Generator().manual_seed(0))
    said = CovarianceMetadata(model_fingerprint="sha256:m", text="corpus.txt", tokens=1000, max_length=512)
    write_covariance(path, {W: mean}, said)
    read = CovarianceFile.open(path)
    assert read.weights == (W,)
    assert torch.equal(read.mean(W), mean)
    assert read.metadata == said.model_copy(update={"format_version": 1})


def test_a_file_from_elsewhere_may_say_nothing(tmp_path):
    """Without metadata every field is None; float32 is widened."""
    path = tmp_path / "C0.safetensors"
    save_file({f"{W}.covariance": torch.eye(3)}, path)
    read = CovarianceFile.open(path)
    assert read.metadata == CovarianceMetadata()
    assert read.mean(W).dtype == torch.float64


NAN = torch.full((2, 2), float("nan"))
BAD = {
    "another name": ({"w.mom2": torch.eye(2)}, r"w\.mom2"),
    "not square": ({"w.covariance": torch.ones(2, 3)}, "not square"),
    "a vector": ({"w.covariance": torch.ones(2)}, "not square"),
    "half precision": ({"w.covariance": torch.eye(2).half()}, "F16"),
    "no tensors": ({}, "no tensors"),
    "not finite": ({"w.covariance": NAN}, "not finite"),
    "not symmetric": ({"w.covariance": torch.tensor([[1.0, 0.5], [0, 1]])}, "not symmetric"),
    "another weight": ({"v.covariance": torch.eye(2)}, r"no covariance of w \(it has v\)"),
}


@pytest.mark.parametrize(("tensors", "said"), BAD.values(), ids=BAD)
def test_what_is_no_covariance_is_refused_by_name(tmp_path, tensors, said):
    """The error names the file and the layer, and the mend."""
    path = tmp_path / "C0.safetensors"
    save_file(tensors, path)
    with pytest.raises(BadFileError, match=said) as caught:
        CovarianceFile.open(path).mean("w")
    assert str(path) in caught.value.what
    assert "collab covariance" in caught.value.mend
