"""Fingerprints: what two parties compare to know that they hold the same model and the same covariance."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from collabedit.common.errors import BadFileError
from collabedit.common.model_folder import ModelFolder

CHUNK = 1 << 20
VOLATILE = frozenset({"transformers_version", "_name_or_path", "torch_dtype", "dtype"})
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model", "special_tokens_map.json")


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes, read in pieces of 1 MiB."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def tensors_fingerprint(files: Iterable[Path]) -> str:
    """`sha256:…` over the names, dtypes, shapes and bytes of the tensors of safetensors files.

    It does not depend on how tensors are spread over files, nor on the files' metadata.
    """
    lines = []
    for file in sorted(set(files)):
        lines += _tensor_lines(file)
    return "sha256:" + hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _tensor_lines(file: Path) -> list[str]:
    try:
        with safe_open(file, framework="np") as tensors:  # checks the header; bytes are read by offset below
            list(tensors.keys())
    except (OSError, SafetensorError) as error:
        raise BadFileError(
            f"{file}: {error}", mend="the file is truncated or not safetensors: copy it again"
        ) from error
    with file.open("rb") as handle:
        size = int.from_bytes(handle.read(8), "little")
        header = json.loads(handle.read(size))
        header.pop("__metadata__", None)
        lines = []
        for name, entry in sorted(header.items()):
            begin, end = entry["data_offsets"]
            handle.seek(8 + size + begin)
            digest, left = hashlib.sha256(), end - begin
            while left:
                piece = handle.read(min(CHUNK, left))
                digest.update(piece)
                left -= len(piece)
            lines.append(f"{name} {entry['dtype']} {entry['shape']} {digest.hexdigest()}")
    return lines


def model_fingerprint(folder: ModelFolder) -> str:
    """`sha256:…` over a model's tensors, its config (less what saving it again changes) and its tokenizer's files."""
    config = {key: value for key, value in folder.config.items() if key not in VOLATILE}
    parts = [tensors_fingerprint(folder.files.values()), json.dumps(config, sort_keys=True)]
    parts += [f"{name} {file_digest(folder.path / name)}" for name in TOKENIZER_FILES if (folder.path / name).is_file()]
    return "sha256:" + hashlib.sha256("\n".join(parts).encode()).hexdigest()


def covariance_fingerprint(file: Path) -> str:
    """`sha256:…` over a covariance file's tensors."""
    return tensors_fingerprint([file])
