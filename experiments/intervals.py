"""Confidence intervals of metrics: the percentile bootstrap over records (Efron and Tibshirani 1993, chapter 13).

A resample draws as many records as there are, with replacement, and its figures are computed as those of the records
themselves: means over the records that have a kind, and Score as the harmonic mean of the resample's own means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from collabedit.client.metrics import Scores
from collabedit.common.errors import UsageError

RESAMPLES: Final = 2000
LEVEL: Final = 0.95
AT_ONCE: Final = 1 << 22  # numbers drawn at a time
MEASURES: Final = {"success": "ES PS NS ScoreS", "accuracy": "EA PA NA ScoreA", "whole": "EW PW NW ScoreW"}

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Interval:
    """A figure of the records, and between which values it lies with the level asked for."""

    value: float
    low: float
    high: float


def intervals(
    scores: Scores, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """An interval for each figure of `scores.figures()` that is there.

    level: between 0 and 1. The same scores and seed give the same intervals.
    """
    values = _values(scores)
    if not len(values):
        return {}
    drawn = [_figures(values, counts) for counts in _resampled(len(values), resamples, seed)]
    return _between(_named(scores), np.concatenate(drawn), _figures(values, _once(values))[0], level)


def differences(
    one: Scores, other: Scores, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """An interval for one's figure less the other's, paired: each resample takes the same records of both.

    Raises UsageError where the two are not of the same edits in the same order.
    """
    return weighted_sums([(1.0, one), (-1.0, other)], level=level, resamples=resamples, seed=seed)


def weighted_sums(
    terms: Sequence[tuple[float, Scores]], *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """An interval for the sum of several scores' figures, each by its weight, paired as in `differences`.

    Raises UsageError where not all are of the same edits in the same order.
    """
    if len({tuple(each.id for each in scores.edits) for _, scores in terms}) != 1:
        raise UsageError("scores of different edits cannot be paired")
    weighted = [(weight, _values(scores)) for weight, scores in terms]
    edits = len(terms[0][1].edits)
    if not edits:
        return {}

    def summed(counts: Array) -> Array:
        figures: Array = np.add.reduce([weight * _figures(values, counts) for weight, values in weighted])
        return figures

    drawn = np.concatenate([summed(counts) for counts in _resampled(edits, resamples, seed)])
    named = [_named(scores) for _, scores in terms]
    everywhere = {name: at for name, at in named[0].items() if all(name in each for each in named)}
    return _between(everywhere, drawn, summed(_once(weighted[0][1]))[0], level)


def mean_interval(
    values: Sequence[float], *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """An interval for the mean of one number of each record; there is one record at least."""
    each = np.array(values, dtype=np.float64)
    drawn = np.concatenate([counts @ each for counts in _resampled(len(each), resamples, seed)]) / len(each)
    return _between({"": 0}, drawn[:, None], np.array([each.mean()]), level)[""]


def _values(scores: Scores) -> Array:
    """[records, 9]: success, accuracy, whole, each by kind; NaN where a record has none."""
    rows = [
        [
            np.nan if value is None else value
            for kinds in (each.success, each.accuracy, each.whole)
            for value in (kinds.efficacy, kinds.paraphrase, kinds.neighborhood)
        ]
        for each in scores.edits
    ]
    return np.array(rows, dtype=np.float64).reshape(-1, 9)


def _once(values: Array) -> Array:
    """The resample that is the records themselves."""
    return np.ones((1, len(values)))


def _resampled(records: int, resamples: int, seed: int) -> Iterator[Array]:
    """How often each record is in each resample, [some resamples, records], until there are as many as asked for."""
    generator = np.random.default_rng(seed)
    step = max(1, AT_ONCE // records)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        yield generator.multinomial(records, np.full(records, 1 / records), size=size).astype(np.float64)


def _figures(values: Array, counts: Array) -> Array:
    """The figures of resamples, [resamples, 12]: of each measure the three kinds and their Score.

    A resample without a record that has a kind leaves it out, as records without it do.
    """
    present = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (counts @ np.nan_to_num(values)) / (counts @ present)
    means = means.reshape(-1, 3, 3)
    there = ~np.isnan(means)
    with np.errstate(invalid="ignore", divide="ignore"):
        score = there.sum(2) / np.where(there, 1 / means, 0).sum(2)
    return np.concatenate([means, score[:, :, None]], axis=2).reshape(-1, 12)


def _named(scores: Scores) -> Mapping[str, int]:
    """Where each figure of the scores stands among the twelve."""
    columns = {name: at for at, name in enumerate(" ".join(MEASURES.values()).split())}
    columns["Score"] = columns.pop("ScoreA" if scores.family == "zsre" else "ScoreS")
    return {name: columns[name] for name, value in scores.figures().items() if value is not None}


def _between(named: Mapping[str, int], drawn: Array, value: Array, level: float) -> dict[str, Interval]:
    if not 0 < level < 1:
        raise UsageError(f"a level of {level} is not between 0 and 1")
    outside = (1 - level) / 2
    low, high = np.nanquantile(drawn[:, list(named.values())], [outside, 1 - outside], axis=0) if named else ((), ())
    return {
        name: Interval(float(value[column]), float(low[at]), float(high[at]))
        for at, (name, column) in enumerate(named.items())
    }
