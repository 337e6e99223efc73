"""Causal tracing written from ROME's text: one full forward for each restoration and each draw of the noise."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from collabedit.client.loading import LoadedModel
from collabedit.client.probes import Probe


def modules(loaded: LoadedModel, kind: str) -> list[Any]:
    """The modules of a kind in all layers."""
    name = {
        "hidden": loaded.architecture.layer_module,
        "mlp": loaded.architecture.feed_forward,
        "attention": loaded.architecture.attention,
    }[kind]
    return [loaded.model.get_submodule(name.format(layer)) for layer in range(len(loaded.blocks))]


def probability(loaded: LoadedModel, probe: Probe, hooks: Sequence[tuple[Any, Any]]) -> float:
    """P(the object's first token) after the prompt, in a forward of one row with hooks on modules' outputs."""
    with ExitStack() as stack, torch.no_grad():
        for module, hook in hooks:
            stack.callback(module.register_forward_hook(hook).remove)
        logits = loaded.model(input_ids=torch.tensor([probe.ids]), use_cache=False).logits[0, -1]
    return float(logits.softmax(-1)[probe.answer])


def first_of(output: Any) -> Tensor:
    """The states in a module's output."""
    return output[0] if isinstance(output, tuple) else output


def clean_states(loaded: LoadedModel, probe: Probe, kind: str) -> list[Tensor]:
    """Each layer's output in the clean run, [tokens, d]."""
    kept: list[Tensor] = []
    hooks = [
        (module, lambda _, __, output: kept.append(first_of(output).reshape(len(probe.ids), -1).clone()))
        for module in modules(loaded, kind)
    ]
    probability(loaded, probe, hooks)
    return kept


def noisy(loaded: LoadedModel, probe: Probe, noise: Tensor) -> tuple[Any, Any]:
    """The hook that adds noise [subject's tokens, d] to the subject's embeddings."""

    def add(_: Any, __: Any, output: Tensor) -> Tensor:
        output = output.clone()
        output[0, probe.first : probe.last + 1] += noise.to(output)
        return output

    return loaded.model.get_submodule(loaded.architecture.embeddings), add


def put(module: Any, token: int, value: Tensor) -> tuple[Any, Any]:
    """The hook that puts one token's state back."""

    def change(_: Any, __: Any, output: Any) -> Any:
        states = first_of(output).clone()
        states.view(-1, states.shape[-1])[token] = value
        return (states, *output[1:]) if isinstance(output, tuple) else states

    return module, change


def restored(loaded: LoadedModel, probe: Probe, noise: Tensor, kind: str, token: int, layer: int, window: int) -> float:
    """The mean over the draws of `noise` [samples, subject's tokens, d] of P(object) with one restoration."""
    clean, layers = clean_states(loaded, probe, kind), range(len(loaded.blocks))
    start = layer - window // 2
    chosen = [layer] if kind == "hidden" else [each for each in range(start, start + window) if each in layers]
    back = [put(modules(loaded, kind)[each], token, clean[each][token]) for each in chosen]
    return sum(probability(loaded, probe, [noisy(loaded, probe, draw), *back]) for draw in noise) / len(noise)
