"""Bootstrap intervals against scipy's, against what must hold of any, and against resamples drawn one by one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap

from collabedit.client.metrics import EditScore, Kinds, Scores, combined
from collabedit.common.errors import UsageError
from collabedit.experiments.intervals import differences, intervals, mean_interval, weighted_sums

NONE = Kinds(None, None, None)


def made(successes: list[tuple[float | None, float | None, float | None]], *, family: str = "counterfact") -> Scores:
    """Scores of edits with these figures; zsRE's are taken for accuracies."""
    kinds = [Kinds(*each) for each in successes]
    first = family == "counterfact"
    accuracy = [Kinds(0.5, None, None) for _ in kinds] if first else kinds
    success = kinds if first else [NONE for _ in kinds]
    edits = tuple(
        EditScore(str(at), s, a, Kinds(0.0, None, None), 0.5)
        for at, (s, a) in enumerate(zip(success, accuracy, strict=True))
    )
    means = [Kinds.mean(each) for each in (success, accuracy, [each.whole for each in edits])]
    return Scores(family, *means, edits)  # type: ignore[arg-type]


def drawn(count: int, seed: int, rate: float = 0.7) -> Scores:
    """Random figures: E is 0 or 1, P of two paraphrases, N of ten neighbours; some edits have no paraphrase."""
    generator = np.random.default_rng(seed)
    return made(
        [
            (
                float(generator.random() < rate),
                None if generator.random() < 0.2 else float(generator.binomial(2, rate)) / 2,
                float(generator.binomial(10, rate)) / 10,
            )
            for _ in range(count)
        ]
    )


@pytest.mark.parametrize("name", ["ES", "NS"])
def test_an_interval_of_a_mean_is_scipys(name: str) -> None:
    """The percentile bootstrap of scipy on the same records has the same bounds, up to the draw."""
    scores = drawn(300, seed=1)
    values = np.array([each.efficacy if name == "ES" else each.neighborhood for each in scores.edits])
    theirs = bootstrap((values,), np.mean, method="percentile", n_resamples=9000, rng=0).confidence_interval
    ours = intervals(scores, resamples=9000)[name]
    assert ours.value == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.004)


def test_the_score_is_resampled_jointly() -> None:
    """A resample's Score is the harmonic mean of its own means: scipy's paired bootstrap has its bounds."""
    scores = made([each for each in [(1.0, 0.5, 0.1), (0.0, 1.0, 0.9), (1.0, 0.0, 0.4)] for _ in range(40)])
    columns = tuple(np.array([getattr(e.success, k) for e in scores.edits]) for k in ("efficacy", "paraphrase"))
    rest = np.array([each.neighborhood for each in scores.edits])

    def statistic(e: np.ndarray, p: np.ndarray, n: np.ndarray, axis: int = -1) -> np.ndarray:
        return 3 / (1 / e.mean(axis) + 1 / p.mean(axis) + 1 / n.mean(axis))

    theirs = bootstrap((*columns, rest), statistic, paired=True, method="percentile", n_resamples=9000, rng=0)
    ours = intervals(scores, resamples=9000)["Score"]
    bounds = (theirs.confidence_interval.low, theirs.confidence_interval.high)
    assert (ours.low, ours.high) == pytest.approx(bounds, abs=0.004)


def test_the_values_are_the_scores_own() -> None:
    """Each figure that is there has an interval, around the value that the scores say; None has none."""
    scores = drawn(50, seed=2)
    found = intervals(scores, resamples=500)
    present = {name: value for name, value in scores.figures().items() if value is not None}
    assert {name: each.value for name, each in found.items()} == pytest.approx(present)
    assert all(each.low <= each.value <= each.high for each in found.values())
    assert "PA" not in found
    assert found["Score"].value == pytest.approx(combined((scores.ES, scores.PS, scores.NS)))


def test_the_seed_alone_decides() -> None:
    """The same seed gives the same bounds; another gives others; a wider level holds the narrower."""
    scores = drawn(60, seed=3)
    assert intervals(scores, seed=5) == intervals(scores, seed=5)
    assert intervals(scores, seed=5) != intervals(scores, seed=6)
    wide, narrow = (intervals(scores, level=level)["Score"] for level in (0.99, 0.5))
    assert wide.low <= narrow.low <= narrow.high <= wide.high


def test_zsre_is_judged_by_its_accuracies() -> None:
    """EA, PA, NA and their Score; all alike in every record leaves no doubt."""
    found = intervals(made([(0.5, 0.25, 0.5)] * 20, family="zsre"))
    assert (found["Score"].low, found["Score"].value, found["Score"].high) == pytest.approx((3 / 8,) * 3)
    assert "ES" not in found
    assert "ScoreA" not in found


def test_a_difference_is_paired() -> None:
    """A method that is better by the same in every record is so without doubt, however much the records differ."""
    one = drawn(200, seed=4)
    worse = made([(e.efficacy, e.paraphrase, (e.neighborhood or 0) - 0.125) for e in one.edits])
    found = differences(one, worse)
    assert (found["NS"].low, found["NS"].value, found["NS"].high) == pytest.approx((0.125,) * 3)
    assert (found["ES"].low, found["ES"].high) == (0, 0)
    assert found["Score"].low > 0
    with pytest.raises(UsageError, match="paired"):
        differences(one, drawn(199, seed=4))


def test_a_weighted_sum_is_paired() -> None:
    """What two pairs lose is compared on the same resamples: alike losses leave no doubt, whatever they are."""
    one, other = drawn(80, seed=5), drawn(80, seed=6)
    terms = [(1.0, one), (-1.0, other), (-1.0, one), (1.0, other)]
    found = weighted_sums(terms)["Score"]
    assert (found.low, found.value, found.high) == pytest.approx((0, 0, 0))
    assert weighted_sums([(1.0, one), (-1.0, other)], seed=7) == differences(one, other, seed=7)
    twice, once = (weighted_sums([(weight, one)], seed=8)["Score"] for weight in (2.0, 1.0))
    assert (twice.low, twice.value) == pytest.approx((2 * once.low, 2 * once.value))
    with pytest.raises(UsageError, match="paired"):
        weighted_sums([(1.0, one), (1.0, one), (1.0, drawn(79, seed=5))])


def test_a_kind_that_is_never_right_makes_the_score_zero() -> None:
    """A mean of 0 makes the harmonic mean 0, in resamples as in the figures."""
    found = intervals(made([(0.0, 0.5, 0.5), (0.0, 1.0, 1.0)]))
    assert (found["Score"].low, found["Score"].value, found["Score"].high) == (0, 0, 0)


def test_no_records_have_no_intervals() -> None:
    """Nothing is said of nothing; a level outside (0, 1) is refused."""
    assert intervals(made([])) == {}
    with pytest.raises(UsageError, match="level"):
        intervals(drawn(3, seed=0), level=95)


def test_a_mean_of_one_number_a_record_has_the_interval_that_a_figure_has() -> None:
    """The same resamples: of ES's ones and zeros it is ES's interval."""
    scores = drawn(40, 3)
    found = mean_interval([each.efficacy or 0.0 for each in scores.edits], seed=5)
    expected = intervals(scores, seed=5)["ES"]
    assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))
