"""MEMIT's updates: one layer, all layers alone, all layers of everybody's edits (algorithm section 3 and 8, step 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from collabedit.client.keys import Measured, measure, measure_layers
from collabedit.client.loading import LoadedModel
from collabedit.client.targets import Targets
from collabedit.client.weights import add_update, restored
from collabedit.common.contribution import Factored
from collabedit.common.edits import Edit
from collabedit.common.factors import factor_update, update_from_keys
from collabedit.common.hparams import HyperParameters, ResidualShares, Spread

Templates = Sequence[Sequence[str]]


def share(index: int, count: int, shares: ResidualShares = "remaining") -> float:
    """What layer number `index` (from 0) of `count` takes of the residual: 1/(count − index), or 1/count."""
    return 1.0 / (count - index) if shares == "remaining" else 1.0 / count


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

    The model is only read: the caller writes the merged weight of this layer before the next step.
    """
    measured = measure(loaded, edits, hparams, templates, hparams.layers[index])
    return factor_update(*layer_update(measured, targets.z, index, len(hparams.layers), shares))


def edit_alone(
    loaded: LoadedModel,
    edits: Sequence[Edit],
    targets: Targets,
    hparams: HyperParameters,
    templates: Templates,
    priors: Mapping[str, Tensor],
    *,
    spread: Spread = "sequential",
    shares: ResidualShares = "remaining",
) -> dict[str, Factored]:
    """One party's contribution to a one-shot round, by weight; the model is left as it was.

    priors: C of each edited weight, [d_in, d_in], symmetric positive definite; only `sequential` reads them.
    Raises NotPositiveDefiniteError that names the weight.
    """
    steps = _steps(loaded, edits, targets, hparams, templates, priors, spread, shares)
    return {step.name: factor_update(step.keys, step.residuals) for step in steps}


def global_edit(
    loaded: LoadedModel,
    edits: Sequence[Edit],
    targets: Targets,
    hparams: HyperParameters,
    templates: Templates,
    priors: Mapping[str, Tensor],
    *,
    spread: Spread = "sequential",
    shares: ResidualShares = "remaining",
) -> dict[str, Tensor]:
    """MEMIT by one party that holds every edit: Δ [d_out, d_in], float64, by weight; the model is left as it was.

    Write the result with `collabedit.client.weights.add_update`. Arguments and errors as in `edit_alone`.
    """
    steps = _steps(loaded, edits, targets, hparams, templates, priors, spread, shares)
    return {step.name: step.solved(priors) for step in steps}


@dataclass(frozen=True)
class _Step:
    """One layer's keys and residuals, and Δ where it has been solved for already."""

    name: str
    keys: Tensor
    residuals: Tensor
    update: Tensor | None = None

    def solved(self, priors: Mapping[str, Tensor]) -> Tensor:
        if self.update is not None:
            return self.update
        return update_from_keys(self.keys, self.residuals, priors[self.name], what=self.name)


def _steps(
    loaded: LoadedModel,
    edits: Sequence[Edit],
    targets: Targets,
    hparams: HyperParameters,
    templates: Templates,
    priors: Mapping[str, Tensor],
    spread: Spread,
    shares: ResidualShares,
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
                step = replace(step, update=step.solved(priors))
                add_update(loaded, name, step.solved(priors))
            steps.append(step)
    return steps
