"""The noise that hides a subject from the model (Meng et al. 2022, section 2.1 and appendix B).

ν = factor × the standard deviation of the model's embeddings over the subjects' tokens; ROME's runs call factor 3 "s3".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from collabedit.client.loading import LoadedModel
from collabedit.client.probes import Probe


@torch.no_grad()
def embedding_std(loaded: LoadedModel, probes: Sequence[Probe]) -> float:
    """Standard deviation over all entries of the embeddings of all the probes' subject tokens, as often as they occur.

    The embeddings are those that enter the model: a factor that the family's embedding module applies is in them.
    """
    ids = torch.tensor([each for probe in probes for each in probe.subject_ids], device=loaded.device)
    embedded: Tensor = embeddings(loaded)(ids)
    return float(embedded.double().std())


def embeddings(loaded: LoadedModel) -> nn.Module:
    """The module that turns token ids into vectors."""
    return loaded.module(loaded.architecture.embeddings)


def noise_of(probe: Probe, width: int, *, std: float, samples: int, seed: int) -> Tensor:
    """What is added to one probe's subject tokens: [samples, subject's tokens, width], float64, on the CPU.

    It depends on the seed and on the fact itself, not on the facts that are traced with it.
    """
    said = json.dumps([seed, probe.fact.prompt, probe.fact.subject], ensure_ascii=False)
    own = int.from_bytes(hashlib.sha256(said.encode()).digest()[:8], "big") >> 1
    generator = torch.Generator().manual_seed(own)
    return std * torch.randn(samples, len(probe.subject_ids), width, generator=generator, dtype=torch.float64)


@contextmanager
def added_to_embeddings(loaded: LoadedModel, noise: Tensor) -> Iterator[None]:
    """Inside, `noise` [rows, columns, width] is added to the embeddings of a pass over as many rows and columns."""

    def add(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        return output + noise.to(output)

    handle = embeddings(loaded).register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
