"""Keys and states on the model's present weights (algorithm section 8, step 4)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from collabedit.client.loading import LoadedModel
from collabedit.client.lookup import Row, key_rows
from collabedit.client.passes import Extent, groups, inputs_of, only_blocks, output_of, pad, run_base
from collabedit.common.edits import Edit
from collabedit.common.hparams import HyperParameters


@dataclass(frozen=True)
class Measured:
    """keys K: [d_in, M], inputs of one layer's rewrite module; states h: [d_model, M], of the LAST edited layer.

    Both at the subject's last token, float64, on the CPU, in the edits' order.
    """

    keys: Tensor
    states: Tensor


def measure(
    loaded: LoadedModel,
    edits: Sequence[Edit],
    hparams: HyperParameters,
    templates: Sequence[Sequence[str]],
    layer: int,
    *,
    batch: int | None = None,
) -> Measured:
    """K of one layer and h of the last edited one, on the present weights. See `measure_layers`."""
    return measure_layers(loaded, edits, hparams, templates, (layer,), batch=batch)[layer]


def measure_layers(
    loaded: LoadedModel,
    edits: Sequence[Edit],
    hparams: HyperParameters,
    templates: Sequence[Sequence[str]],
    layers: Sequence[int],
    *,
    batch: int | None = None,
) -> dict[int, Measured]:
    """K of several layers and h of the last edited one, in one pass over the rows of each edit.

    A key is the mean in each template group, then over the groups, so that the bare prompt weighs one half; h is the
    bare prompt's (the first row's).

    batch: most padded tokens of a pass. None: each edit in a pass of its own, so that what is measured is the same bit
    for bit whichever edits are measured with it. That is what makes parties' sums equal to one party's: kernels round
    otherwise for other shapes, and the solve enlarges it. Measured in float32 on 24 CounterFact edits, cond(C) 6e3:
    keys that differ by 2e-7 between two ways of batching gave updates that differ by 2e-6; one edit a pass gave 0.
    """
    plans = [key_rows(loaded, edit, templates) for edit in edits]
    sizes = [len(group) for group in templates]
    keys: dict[int, list[Tensor]] = {layer: [torch.empty(0)] * len(edits) for layer in layers}
    states: list[Tensor] = [torch.empty(0)] * len(edits)
    for members in groups([Extent.of(plan) for plan in plans], batch or 0):
        inputs, output = _pass(loaded, [row for member in members for row in plans[member]], hparams, layers)
        for number, member in enumerate(members):
            rows = slice(number * sum(sizes), (number + 1) * sum(sizes))
            states[member] = output[rows][0]
            for layer in layers:
                keys[layer][member] = _grouped_mean(inputs[layer][rows], sizes)
    h = torch.stack(states, dim=1)
    return {layer: Measured(torch.stack(keys[layer], dim=1), h) for layer in layers}


@torch.no_grad()
def _pass(
    loaded: LoadedModel, rows: Sequence[Row], hparams: HyperParameters, layers: Sequence[int]
) -> tuple[dict[int, Tensor], Tensor]:
    """Inputs of the rewrite modules and the z layer's output, at the rows' last tokens: [rows, …], float64."""
    z_layer = hparams.layers[-1]
    padded = pad(rows, loaded.device)
    inputs: dict[int, Tensor] = {}
    outputs: list[Tensor] = []
    with ExitStack() as stack:
        stack.enter_context(only_blocks(loaded, 0, z_layer))
        stack.enter_context(inputs_of([loaded.rewrite_module(hparams, layer) for layer in layers], inputs, padded))
        stack.enter_context(output_of(loaded.blocks[z_layer], outputs))
        run_base(loaded, padded)
    last = {layer: inputs[number][:, padded.column].double().cpu() for number, layer in enumerate(layers)}
    return last, outputs[0][:, padded.column].double().cpu()


def _grouped_mean(rows: Tensor, sizes: Sequence[int]) -> Tensor:
    """Mean over groups of consecutive rows [n, d] of the mean in each group: [d]."""
    return torch.stack([group.mean(0) for group in torch.split(rows, list(sizes))]).mean(0)
