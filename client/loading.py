"""A model folder as a model in memory, beside its tokenizer and its family's adapter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from collabedit.client.placement import working_device
from collabedit.common.architectures import Architecture
from collabedit.common.errors import BadModelError, UsageError
from collabedit.common.fingerprint import model_fingerprint
from collabedit.common.hparams import HyperParameters
from collabedit.common.model_folder import ModelFolder
from collabedit.common.settings import ModelDtype


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model in evaluation mode, without gradients of its own.

    model: transformers' `…ForCausalLM`; tokenizer: a fast one (character offsets are needed).
    """

    model: Any
    tokenizer: Any
    architecture: Architecture
    folder: ModelFolder

    @property
    def device(self) -> torch.device:
        """Where the model's inputs go: its embeddings' device. A large model's blocks may be spread over others."""
        return working_device(self.model.get_input_embeddings())

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the model's weights."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    @property
    def working_dtype(self) -> torch.dtype:
        """The dtype of losses and of z: float32 for models in float32 or less, float64 for models in float64."""
        return torch.promote_types(self.dtype, torch.float32)

    @property
    def blocks(self) -> nn.ModuleList:
        """The decoder's blocks, from the lowest."""
        found: nn.ModuleList = self.model.get_submodule(self.architecture.blocks)
        return found

    @property
    def longest(self) -> int:
        """How many tokens the model's positions reach; a sliding window is no limit."""
        return int(getattr(self.model.config.get_text_config(), "max_position_embeddings", 2048))

    @cached_property
    def fingerprint(self) -> str:
        """`sha256:…` of the folder that the model came from; read once."""
        return model_fingerprint(self.folder)

    def rewrite_module(self, hparams: HyperParameters, layer: int) -> nn.Module:
        """The module whose weight is edited in one layer. Raises BadModelError where there is none of that name."""
        return self.module((hparams.rewrite_module_tmp or self.architecture.rewrite_module).format(layer))

    def find_module(self, name: str) -> nn.Module | None:
        """A module by its full name; None where there is none of that name, or it is None itself."""
        try:
            found: nn.Module | None = self.model.get_submodule(name) if name else None
        except AttributeError:
            return None
        return found

    def module(self, name: str) -> nn.Module:
        """A module by its full name. Raises BadModelError where there is none of that name."""
        try:
            module: nn.Module = self.model.get_submodule(name)
        except AttributeError as error:
            raise BadModelError(
                f"{self.folder.name}: no module {name}",
                mend="rewrite_module_tmp and layers of the hyperparameters must fit the model",
            ) from error
        return module


def load_model(
    folder: ModelFolder,
    *,
    dtype: torch.dtype | ModelDtype = torch.float32,
    device: str | torch.device | Mapping[str, str | int] = "cpu",
) -> LoadedModel:
    """Loads a model and its tokenizer from a folder on disk; nothing is fetched.

    dtype: of the weights in memory; "auto": the folder's own. device: where they go; "auto" lets accelerate spread the
    blocks over all GPUs, and what does not fit there over memory and disk; a mapping is accelerate's own device_map.
    Raises BadModelError where no adapter fits the family, transformers cannot load the folder, or the tokenizer is
    not a fast one; UsageError where the device is not there.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from collabedit.client.attention import make_exact

    architecture = folder.architecture
    spread = {"device_map": device} if device == "auto" or isinstance(device, Mapping) else {}
    try:
        with _quiet():
            model = AutoModelForCausalLM.from_pretrained(folder.path, dtype=dtype, local_files_only=True, **spread)
        tokenizer = AutoTokenizer.from_pretrained(folder.path, use_fast=True, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise BadModelError(f"{folder.path}: {_first_line(error)}", mend="is the model folder complete?") from error
    if not tokenizer.is_fast:
        raise BadModelError(
            f"{folder.path}: the tokenizer has no character offsets",
            mend="save a fast tokenizer (tokenizer.json) in the folder",
        )
    make_exact(model)
    if isinstance(device, str | torch.device) and not spread:
        _move(model, device)
    model.eval().requires_grad_(False)
    return LoadedModel(model, tokenizer, architecture, folder)


def _move(model: Any, device: str | torch.device) -> None:
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {device}: {_first_line(error)}", mend="cpu, cuda, cuda:1, … or auto") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own progress bars, which would be mixed with a command's."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
