"""A model folder with other weights in it: the base model's files, the edited tensors' bytes written over in place.

A new weight has the name, shape and dtype of the one that it replaces, so a file's header stays as it is and only the
tensor's byte range changes. That needs one tensor's memory, whatever the size of the model, and sharded folders need
nothing of their own.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from collabedit.common.errors import BadFileError, UsageError
from collabedit.common.files import sync_folder, write_durably
from collabedit.common.model_folder import ModelFolder

PROVENANCE = "collabedit.json"
# Other formats of the base model's weights would be loaded instead of the new ones; so would stale statistics.
LEFT_OUT = frozenset({".safetensors", ".bin", ".h5", ".msgpack", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".ot"})
TORCH_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def export_model(
    base: ModelFolder, weights: Iterable[tuple[str, Tensor]], out: Path, provenance: Mapping[str, Any]
) -> tuple[str, ...]:
    """Writes the folder `out`: `base` with `weights` (full name, [d_out, d_in], any float dtype) in the base's dtype.

    The folder appears whole or not at all. `provenance` is written into it as collabedit.json. Returns the names of
    the weights. Raises UsageError where `out` is there already, BadFileError where a shape differs or is not finite.
    """
    with new_folder(out) as folder:
        _copy_files(base, folder)
        names = tuple(_replace(base, folder, name, weight) for name, weight in weights)
        write_durably(folder / PROVENANCE, json.dumps({**provenance, "weights": names}, indent=2).encode() + b"\n")
    return names


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill that becomes `out`, durably, on a clean exit; on an error nothing is left.

    Raises UsageError where `out` is there already.
    """
    out = out.absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: is there already, and not empty", mend="give --out a new folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield temporary
        _make_durable(temporary)
        temporary.chmod(0o755)
        temporary.replace(out)
        sync_folder(out.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _copy_files(base: ModelFolder, target: Path) -> None:
    """The folder's own files (config, tokenizer, …) and the safetensors files that hold the model."""
    wanted = {file.resolve() for file in base.files.values()}
    for file in sorted(base.path.iterdir()):
        stays = file.resolve() in wanted or file.suffix not in LEFT_OUT
        if file.is_file() and stays and not file.name.startswith("."):
            shutil.copyfile(file, target / file.name)


def _replace(base: ModelFolder, folder: Path, name: str, weight: Tensor) -> str:
    """Writes one weight over the base's bytes in `folder`'s copy of the file that holds it."""
    stored = base.stored_name(name)
    file = folder / base.files[stored].name
    with file.open("r+b") as handle:
        size = int.from_bytes(handle.read(8), "little")
        entry = json.loads(handle.read(size))[stored]
        if entry["dtype"] not in TORCH_DTYPES:
            raise BadFileError(f"{file.name}: {stored} is stored as {entry['dtype']}, which cannot be edited")
        tensor = base.as_stored(weight, TORCH_DTYPES[entry["dtype"]])
        if list(tensor.shape) != entry["shape"]:
            raise BadFileError(f"{name}: shape {list(tensor.shape)} as stored, the model has {entry['shape']}")
        if not bool(torch.isfinite(tensor).all()):
            raise BadFileError(f"{name}: not finite as {entry['dtype']}")
        handle.seek(8 + size + int(entry["data_offsets"][0]))
        handle.write(tensor.view(torch.uint8).numpy().data)
    return name


def _make_durable(folder: Path) -> None:
    for file in folder.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    sync_folder(folder)
