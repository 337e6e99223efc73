"""Updates of one layer, all layers alone, all layers of everybody's edits (algorithm section 3 and 8, step 5).

The steps are MEMIT's; how keys and residuals become Δ is the editor's (`collabedit.common.editors`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Final

from torch import Tensor

from collabedit.client.keys import Measured, measure, measure_layers
from collabedit.client.loading import LoadedModel
from collabedit.client.targets import Targets
from collabedit.client.weights import add_update, restored
from collabedit.common.contribution import Factored
from collabedit.common.editors import MEMIT, Editor, unsplit
from collabedit.common.edits import Edit
from collabedit.common.factors import factor_update
from collabedit.common.hparams import HyperParameters, ResidualShares, Spread
from collabedit.common.prior import Prior

Templates = Sequence[Sequence[str]]
SHARES: Final[Mapping[ResidualShares, Callable[[int, int], float]]] = {
    "remaining": lambda index, count: 1.0 / (count - index),  # MEMIT
    "square-root": lambda index, count: 1.0 / sqrt(count - index),  # PMET (Li et al., AAAI 2024)
    "equal": lambda _, count: 1.0 / count,
}


def share(index: int, count: int, shares: ResidualShares = "remaining") -> float:
    """What layer number `index` (from 0) of `count` takes of the residual: 1/(count − index), its root, or 1/count."""
    return SHARES[shares](index, count)


def layer_update(
    measured: Measured, z: Tensor, index: int, count: int, shares: ResidualShares = "remaining"
) -> tuple[Tensor, Tensor]:
    """(K, R) of one layer, float64: K [d_in, M], and R = share · (z − h), [d_out, M]. z: [d_model, M]."""
    return measured.keys, (z.double() - measured.states) * share(index, count, shares)


def edit_layer(
    loaded: LoadedModel,
    edits: Sequence[Edit],
    targets: Targets,
    hparams: HyperParameters,
    templates: Templates,
    index: int,
    *,
    shares: ResidualShares = "remaining",
) -> Factored:
    """One step of a layer-sync round: layer number `index` of hparams.layers, measured on the present weights.

    The same with every editor. The model is only read: the caller writes the merged weight of this layer before the
    next step.
    """
    measured = measure(loaded, edits, hparams, templates, hparams.layers[index])
    return factor_update(*layer_update(measured, targets.z, index, len(hparams.layers), shares))


def edit_alone(
    loaded: LoadedModel,
    edits: Sequence[Edit],
    targets: Targets,
    hparams: HyperParameters,
    templates: Templates,
    priors: Mapping[str, Prior],
    *,
    spread: Spread = "sequential",
    shares: ResidualShares = "remaining",
    editor: Editor = MEMIT,
) -> dict[str, Factored]:
    """One party's contribution to a one-shot round, by weight; the model is left as it was.

    priors: of each edited weight; only `sequential` reads them. Raises NotPositiveDefiniteError that names the weight.
    """
    steps = _steps(loaded, edits, targets, hparams, templates, priors, spread, shares, editor)
    return {step.name: factor_update(step.keys, step.residuals) for step in steps}


def global_edit(
    loaded: LoadedModel,
    edits: Sequence[Edit],
    targets: Targets,
    hparams: HyperParameters,
    templates: Templates,
    priors: Mapping[str, Prior],
    *,
    spread: Spread = "sequential",
    shares: ResidualShares = "remaining",
    editor: Editor = MEMIT,
) -> dict[str, Tensor]:
    """The edit by one party that holds all: Δ [d_out, d_in], float64, by weight; the model is left as it was.

    Write the result with `collabedit.client.weights.add_update`. Arguments and errors as in `edit_alone`.
    """
    steps = _steps(loaded, edits, targets, hparams, templates, priors, spread, shares, editor)
    return {step.name: step.solved(priors, editor) for step in steps}


@dataclass(frozen=True)
class _Step:
    """One layer's keys and residuals, and Δ where it has been solved for already."""

    name: str
    keys: Tensor
    residuals: Tensor
    update: Tensor | None = None

    def solved(self, priors: Mapping[str, Prior], editor: Editor) -> Tensor:
        if self.update is not None:
            return self.update
        return editor.solve(priors[self.name], [unsplit(self.keys, self.residuals)], what=self.name)


def _steps(
    loaded: LoadedModel,
    edits: Sequence[Edit],
    targets: Targets,
    hparams: HyperParameters,
    templates: Templates,
    priors: Mapping[str, Prior],
    spread: Spread,
    shares: ResidualShares,
    editor: Editor,
) -> list[_Step]:
    """The layers in order; with `sequential` each is measured after the update of the one before was written."""
    layers, names = hparams.layers, loaded.folder.edited_weights(hparams)
    count, steps = len(layers), []
    if spread == "simultaneous":
        measured = measure_layers(loaded, edits, hparams, templates, layers)
        for index, name in enumerate(names):
            steps.append(_Step(name, *layer_update(measured[layers[index]], targets.z, index, count, shares)))
        return steps
    with restored(loaded, names):
        for index, name in enumerate(names):
            measured_now = measure(loaded, edits, hparams, templates, layers[index])
            step = _Step(name, *layer_update(measured_now, targets.z, index, count, shares))
            if index < count - 1:
                update = step.solved(priors, editor)
                add_update(loaded, name, update)
                step = replace(step, update=update)
            steps.append(step)
    return steps
