"""What traces say about the layers to edit: effects averaged over facts by token class, and recommended layers.

Pure: traces in, figures out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan, sqrt
from statistics import fmean, stdev
from typing import Final

import torch
from torch import Tensor

from collabedit.client.probes import CLASSES, TokenClass
from collabedit.client.tracing import KINDS, Kind, Trace

MOST: Final = 5  # layers, as many as MEMIT edits in GPT-2 XL
SHARE: Final = 0.5  # of the peak: what a layer's effect must reach
SURE: Final = 2.0  # standard errors by which a peak must exceed 0

RULE: Final = (
    f"up to {MOST} layers in a row that end at the peak of the MLPs' effect at the subject's last token, "
    f"down as long as the effect is at least {SHARE:g} of the peak's"
)


@dataclass(frozen=True)
class Average:
    """Indirect effects of one token class by layer: the mean over the facts that have such a token (a fact's several
    tokens count by their mean), its standard error (nan for a single fact), and the number of the facts.
    """

    mean: tuple[float, ...]
    error: tuple[float, ...]
    facts: int


Averages = Mapping[TokenClass, Mapping[Kind, Average]]


def averages(traces: Sequence[Trace]) -> Averages:
    """The averages of every token class that occurs, in the order of CLASSES."""
    found: dict[TokenClass, Mapping[Kind, Average]] = {}
    for name in CLASSES:
        rows = [effects for trace in traces if (effects := _of_class(trace, name)) is not None]
        if rows:
            table = torch.stack(rows)
            found[name] = {kind: _average(table[:, number]) for number, kind in enumerate(KINDS)}
    return found


def _of_class(trace: Trace, name: TokenClass) -> Tensor | None:
    """[kinds, layers]: the mean over a fact's tokens of one class; None where it has none."""
    at = [index for index, each in enumerate(trace.probe.classes) if each == name]
    return trace.effects[:, at].mean(1) if at else None


def _average(rows: Tensor) -> Average:
    """rows: [facts, layers], float64."""
    columns = rows.T.tolist()
    errors = (stdev(column) / sqrt(len(column)) if len(column) > 1 else nan for column in columns)
    return Average(tuple(fmean(column) for column in columns), tuple(errors), len(rows))


@dataclass(frozen=True)
class Choice:
    """layers: the recommended ones, ascending; none where no MLP has a positive effect. peak: the layer at whose window
    the MLPs' effect is largest. sure: the peak is two standard errors or more above 0. carried_to: the last layer whose
    output at the subject's last token brings back half of what the best does; above, the fact is read elsewhere.
    """

    layers: tuple[int, ...]
    peak: int
    sure: bool
    carried_to: int


def choose(found: Averages) -> Choice:
    """The recommended layers, by RULE. Every prompt has a subject, so that its class is always there."""
    at_subject = found["last subject token"]
    mlp, hidden = at_subject["mlp"], at_subject["hidden"]
    peak = max(range(len(mlp.mean)), key=lambda layer: mlp.mean[layer])  # the lowest of equals
    sure = mlp.mean[peak] > 0 and mlp.mean[peak] >= SURE * mlp.error[peak]
    return Choice(recommended(mlp.mean), peak, sure, last_reaching(hidden.mean))


def recommended(effects: Sequence[float]) -> tuple[int, ...]:
    """The layers by RULE for the MLPs' effects at the subject's last token, by layer; none where none is positive."""
    peak = max(range(len(effects)), key=lambda layer: effects[layer])
    if not effects[peak] > 0:
        return ()
    first = peak
    while first > 0 and peak - first + 1 < MOST and effects[first - 1] >= SHARE * effects[peak]:
        first -= 1
    return tuple(range(first, peak + 1))


def last_reaching(effects: Sequence[float], share: float = SHARE) -> int:
    """The last layer, going up from the peak, before the effect falls below `share` of the peak's."""
    last = max(range(len(effects)), key=lambda layer: effects[layer])
    peak = effects[last]
    while last + 1 < len(effects) and effects[last + 1] >= share * peak:
        last += 1
    return last
