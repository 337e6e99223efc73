"""Edited weights of a model in memory, read and written as [d_out, d_in].

The only place on the client's side that knows that a family may store them transposed (GPT-2's Conv1D). An edited
weight of a model that is spread over memory and disk is brought in when it is first touched, and stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from collabedit.client.loading import LoadedModel
from collabedit.client.placement import keep_in_place
from collabedit.common.errors import BadFileError, BadModelError


def _parameter(loaded: LoadedModel, name: str) -> Tensor:
    try:
        keep_in_place(loaded.model.get_submodule(name.rpartition(".")[0]))
        parameter: Tensor = loaded.model.get_parameter(name)
    except AttributeError as error:
        raise BadModelError(f"{loaded.folder.name}: no weight {name}") from error
    return parameter.T if loaded.architecture.transposed else parameter


def read_weight(loaded: LoadedModel, name: str) -> Tensor:
    """A copy of one weight, [d_out, d_in], in the model's dtype, on its device. Raises BadModelError for a bad name."""
    return _parameter(loaded, name).detach().clone(memory_format=torch.contiguous_format)


@torch.no_grad()
def write_weight(loaded: LoadedModel, name: str, tensor: Tensor) -> None:
    """Sets one weight, [d_out, d_in], rounded to the model's dtype.

    Raises BadModelError for a name that the model lacks, BadFileError where the shape differs or a number is not
    finite; the model is then as it was.
    """
    parameter = _parameter(loaded, name)
    if tensor.shape != parameter.shape:
        raise BadFileError(f"{name}: shape {list(tensor.shape)}, the model's is {list(parameter.shape)}")
    if not bool(torch.isfinite(tensor).all()):
        raise BadFileError(f"{name}: not all numbers are finite")
    parameter.copy_(tensor)


def add_update(loaded: LoadedModel, name: str, update: Tensor) -> None:
    """W ← W + Δ, summed in float64 and rounded once to the model's dtype. update: Δ, [d_out, d_in]."""
    weight = read_weight(loaded, name).double()
    write_weight(loaded, name, weight + update.to(weight.device, torch.float64))


@contextmanager
def restored(loaded: LoadedModel, names: Iterable[str]) -> Iterator[None]:
    """On leaving, also by an error, the weights are bit for bit what they were on entering."""
    kept = {name: read_weight(loaded, name) for name in names}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, tensor in kept.items():
                _parameter(loaded, name).copy_(tensor)


def weights_digest(loaded: LoadedModel, names: Iterable[str]) -> str:
    """SHA-256 (hex) of the present bytes of some weights, in the order given: tells apart versions of one model."""
    digest = hashlib.sha256()
    for name in names:
        weight = read_weight(loaded, name).cpu()
        digest.update(f"{name} {weight.dtype} {list(weight.shape)}\n".encode())
        digest.update(weight.view(torch.uint8).numpy().data)
    return digest.hexdigest()
