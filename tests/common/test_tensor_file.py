from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from collabedit.common.errors import BadFileError
from collabedit.common.tensor_file import TensorFile, natural, write_tensors

TENSORS = {
    "b": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "a": torch.arange(4, dtype=torch.float64).reshape(2, 2).mT,
    "h.10": torch.ones(3, dtype=torch.bfloat16),
}


def raw(path: Path, header: dict | bytes, data: bytes = b"", *, announced: int | None = None) -> Path:
    """A file with any header, length field and data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if announced is None else announced).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.wheel
def test_others_read_what_we_write(tmp_path):
    """The safetensors library reads our files: values, names, transposed views and metadata."""
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS, {"k": "Δ"})
    read = load_file(path)
    assert set(read) == set(TENSORS)
    assert all(torch.equal(read[name], tensor) for name, tensor in TENSORS.items())
    assert TensorFile.open(path).metadata == {"k": "Δ"}


def test_we_read_what_others_write(tmp_path):
    """Files of the safetensors library, without metadata."""
    path = tmp_path / "x.safetensors"
    save_file({"b": TENSORS["b"]}, path)
    opened = TensorFile.open(path)
    assert (opened.names, opened.metadata) == (("b",), {})
    assert (opened.shape("b"), opened.dtype("b")) == ((2, 3), "F32")
    assert torch.equal(opened.tensor("b"), TENSORS["b"])


def test_the_same_content_is_the_same_bytes(tmp_path):
    """Whatever the order of the mappings: a content address names the content."""
    metadata = {key: key for key in "abcdefgh"}
    write_tensors(tmp_path / "1", TENSORS, metadata)
    write_tensors(tmp_path / "2", dict(reversed(TENSORS.items())), dict(reversed(metadata.items())))
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_the_data_starts_at_a_multiple_of_64(tmp_path):
    """Mapped tensors have the alignment of allocated ones."""
    for length in range(0, 70, 7):
        write_tensors(tmp_path / "x", TENSORS, {"k": "x" * length})
        size = int.from_bytes((tmp_path / "x").read_bytes()[:8], "little")
        assert (size + 8) % 64 == 0
        TensorFile.open(tmp_path / "x")


@given(st.lists(st.integers(0, 99), min_size=1, unique=True))
def test_layers_sort_by_number(layers):
    """h.9 comes before h.10."""
    names = [f"transformer.h.{layer}.mlp.c_proj.weight" for layer in layers]
    assert sorted(names, key=natural) == [f"transformer.h.{layer}.mlp.c_proj.weight" for layer in sorted(layers)]


@given(name=st.text(max_size=9), other=st.text(max_size=9))
@settings(max_examples=200)
def test_any_two_names_have_an_order(name, other):
    """Names from a peer may be anything: sorting them never fails."""
    assert sorted([name, other], key=natural) == sorted([other, name], key=natural) or natural(name) == natural(other)


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HOSTILE = {
    "empty": b"",
    "shorter than the length field": b"\0\0",
    "header longer than the file": (1 << 20).to_bytes(8, "little") + b"{}",
    "header of exabytes": (1 << 62).to_bytes(8, "little") + b"{}",
    "not JSON": (4).to_bytes(8, "little") + b"abcd",
    "a pickle": b"\x80\x04\x95\x0b\0\0\0\0\0\0\0\x8c\x07exploit\x94.",
}
LYING = {
    "shape larger than its bytes": {"a": ENTRY | {"shape": [1 << 40]}},
    "shape that overflows": {"a": ENTRY | {"shape": [1 << 40, 1 << 40]}},
    "bytes beyond the file": {"a": ENTRY | {"shape": [1 << 40], "data_offsets": [0, 1 << 42]}},
    "overlapping tensors": {"a": ENTRY, "b": ENTRY},
    "offsets backwards": {"a": ENTRY | {"data_offsets": [8, 0]}},
    "a hole before the tensor": {"a": ENTRY | {"shape": [1], "data_offsets": [4, 8]}},
    "unknown dtype": {"a": ENTRY | {"dtype": "PICKLE"}},
    "negative shape": {"a": ENTRY | {"shape": [-2]}},
    "metadata that is no string": {"__metadata__": {"k": 1}, "a": ENTRY},
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_bytes_that_are_no_file_are_refused(tmp_path, content):
    """By name, with the mend, before anything is allocated."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadFileError, match=r"x\.safetensors") as caught:
        TensorFile.open(path)
    assert "copy it again" in caught.value.mend


@pytest.mark.parametrize("header", LYING.values(), ids=LYING)
def test_a_header_that_lies_is_refused(tmp_path, header):
    """Sizes and offsets are checked against the file."""
    with pytest.raises(BadFileError, match=r"x\.safetensors"):
        TensorFile.open(raw(tmp_path / "x.safetensors", header, b"\0" * 8))


def test_a_file_cut_anywhere_is_refused(tmp_path):
    """No prefix of a file passes for a file."""
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.ones(2, 2)}, {"k": "v"})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(BadFileError):
            TensorFile.open(path)


@given(place=st.integers(0, 400), byte=st.integers(0, 255))
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_byte_is_refused_or_harmless(tmp_path, place, byte):
    """No byte of length field or header brings anything but BadFileError, or tensors within the file."""
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.ones(2, 2), "b": torch.ones(3)}, {"k": "v"})
    content = bytearray(path.read_bytes())
    content[place % len(content)] = byte
    path.write_bytes(content)
    try:
        opened = TensorFile.open(path)
    except BadFileError:
        return
    assert sum(opened.tensor(name).numel() for name in opened.names) <= len(content)


@pytest.mark.parametrize("name", ["a\nERROR all is lost", "a\x1b[2J", "a" * 501])
def test_names_that_would_spoil_a_log_are_refused(tmp_path, name):
    """A peer's names are shown in messages: one line, of some length."""
    with pytest.raises(BadFileError, match="name is too long or not printable"):
        TensorFile.open(raw(tmp_path / "x.safetensors", {name: ENTRY}, b"\0" * 8))


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    """No traceback for a path that is wrong."""
    with pytest.raises(BadFileError, match="no such file"):
        TensorFile.open(tmp_path / "nothing")
    with pytest.raises(BadFileError, match="no such file"):
        TensorFile.open(tmp_path)


def test_where_nothing_can_be_written_the_error_says_so(tmp_path):
    """A parent that is a file."""
    (tmp_path / "x").write_text("")
    with pytest.raises(BadFileError, match="x/y"):
        write_tensors(tmp_path / "x" / "y", TENSORS)
