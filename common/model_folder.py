"""A Hugging Face model folder on disk: found by name or path, its config and single weights read without loading it.

The edited weights leave and enter here as [d_out, d_in] whatever the family stores.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from collabedit.common.architectures import Architecture, architecture_of
from collabedit.common.errors import BadFileError, BadModelError
from collabedit.common.hparams import HyperParameters
from collabedit.common.hparams_file import read_hparams_file

if TYPE_CHECKING:  # the server starts, and tells models apart, without torch
    import torch
    from torch import Tensor

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


def bundled_models() -> dict[str, Path]:
    """Models that the package ships, by name."""
    root = Path(__file__).parent / "models"
    return {each.name: each for each in sorted(root.iterdir()) if (each / "config.json").is_file()}


def find_model(name_or_path: str) -> ModelFolder:
    """The folder of `atlas` (or another bundled name), or of a path. Raises BadModelError where neither is there."""
    bundled = bundled_models()
    folder = bundled.get(name_or_path) or Path(name_or_path)
    if not (folder / "config.json").is_file():
        names = ", ".join(bundled) or "none"
        raise BadModelError(
            f'no model "{name_or_path}": it is neither bundled ({names}) nor a folder with a config.json',
            mend="give the path of a Hugging Face model folder, or one of the bundled names",
        )
    return ModelFolder(folder, name_or_path if name_or_path in bundled else folder.resolve().name)


@dataclass(frozen=True)
class ModelFolder:
    """A Hugging Face model folder with safetensors weights."""

    path: Path
    name: str

    @cached_property
    def config(self) -> dict[str, Any]:
        """The parsed config.json. Raises BadModelError where it is no JSON object."""
        try:
            config = json.loads((self.path / "config.json").read_text())
        except (OSError, ValueError) as error:
            raise BadModelError(f"{self.path / 'config.json'}: {error}") from error
        if not isinstance(config, dict):
            raise BadModelError(f"{self.path / 'config.json'}: not a JSON object")
        return config

    @property
    def architecture(self) -> Architecture:
        """The family's adapter, by config.json's `model_type`."""
        return architecture_of(str(self.config.get("model_type")))

    @cached_property
    def files(self) -> dict[str, Path]:
        """The file that holds each tensor, by the tensor's full name."""
        index = self.path / INDEX
        if index.is_file():
            weight_map = json.loads(index.read_text())["weight_map"]
            return {name: self.path / file for name, file in weight_map.items()}
        single = self.path / SINGLE
        if not single.is_file():
            raise BadModelError(
                f"{self.path}: no {SINGLE} and no {INDEX}", mend="save the model with safe_serialization=True"
            )
        with self._open(single) as tensors:
            return dict.fromkeys(tensors.keys(), single)

    def _open(self, file: Path, framework: str = "np") -> Any:
        try:
            return safe_open(file, framework=framework)
        except (OSError, SafetensorError) as error:
            raise BadFileError(
                f"{file}: {error}", mend="the file is truncated or not safetensors: copy it again"
            ) from error

    def stored_name(self, weight: str) -> str:
        """The name under which a file holds `weight`: folders may leave the base model's prefix out or have another."""
        loaded, filed = self.architecture.stored
        for name in (weight, weight.partition(".")[2], filed + weight.removeprefix(loaded)):
            if name in self.files:
                return name
        raise BadModelError(f"{self.path}: no tensor {weight}")

    def weight(self, name: str) -> Tensor:
        """One edited weight, [d_out, d_in], in the file's dtype."""
        stored = self.stored_name(name)
        with self._open(self.files[stored], "pt") as tensors:
            tensor: Tensor = tensors.get_tensor(stored)
        return tensor.T.contiguous() if self.architecture.transposed else tensor

    def shape(self, name: str) -> tuple[int, int]:
        """(d_out, d_in) of one edited weight, from its file's header. Raises BadModelError where it is no matrix."""
        stored = self.stored_name(name)
        with self._open(self.files[stored]) as tensors:
            shape = tuple(tensors.get_slice(stored).get_shape())
        if len(shape) != 2:
            raise BadModelError(f"{self.path}: {stored} has shape {shape}, which is not a matrix's")
        rows, columns = shape
        return (columns, rows) if self.architecture.transposed else (rows, columns)

    def as_stored(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """A normalised weight [d_out, d_in] as the family's files hold it."""
        return (weight.T if self.architecture.transposed else weight).to(dtype).contiguous()

    def edited_weights(self, hparams: HyperParameters) -> tuple[str, ...]:
        """Full names of the edited parameters, in the order of the layers.

        Raises BadModelError where the hyperparameters name a module that the model lacks.
        """
        template = hparams.rewrite_module_tmp or self.architecture.rewrite_module
        names = tuple(f"{template.format(layer)}.weight" for layer in hparams.layers)
        for name in names:
            self.stored_name(name)
        return names

    @property
    def preset(self) -> HyperParameters | None:
        """The hyperparameters that the folder itself brings (hparams.json), if any. Raises BadFileError."""
        file = self.path / "hparams.json"
        return read_hparams_file(file) if file.is_file() else None

    @property
    def covariance(self) -> Path | None:
        """The covariance file that the folder itself brings, if any."""
        file = self.path / "covariance.safetensors"
        return file if file.is_file() else None

    @property
    def context_templates(self) -> tuple[tuple[str, ...], ...] | None:
        """The context templates that the folder itself brings, if any."""
        file = self.path / "context_templates.json"
        return tuple(tuple(group) for group in json.loads(file.read_text())) if file.is_file() else None
