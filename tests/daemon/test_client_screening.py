"""What counts as known, and which merged edits are looked at again: pure functions of residuals, keys and figures."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collabedit.client import retention, screening
from collabedit.client.metrics import EditScore, Kinds
from collabedit.client.screening import LEAST, NEWEST, STRAY, calibrate, known

RIGHT = EditScore("1", Kinds(1.0, None, None), Kinds(1.0, None, None), Kinds(1.0, None, None), 0.9)
residuals = st.lists(st.floats(0, 1e6), max_size=2 * NEWEST)
history = st.lists(st.floats(0, 1e6), min_size=LEAST, max_size=NEWEST)
keys = st.lists(st.text("0123456789abcdef", min_size=4, max_size=8), unique=True, max_size=60)


@given(residuals, residuals)
def test_hardly_any_fresh_edit_counts_as_known(fresh: list[float], held: list[float]) -> None:
    """Whatever the history, at most one fresh edit in twenty has a residual that would count as known."""
    threshold = calibrate(fresh, held)
    recent = fresh[-NEWEST:]
    assert threshold >= 0
    if threshold:
        assert sum(each <= threshold for each in recent) <= STRAY * len(recent)


@given(history, history)
def test_what_is_held_counts_as_known_where_it_can_be_told_apart(fresh: list[float], held: list[float]) -> None:
    """Where every held residual lies below every fresh one, at most one held edit in twenty is not known."""
    threshold = calibrate([each + 1e6 + 1 for each in fresh], held)
    assert sum(each > threshold for each in held) <= STRAY * len(held)


@given(history, history, st.sampled_from([0.25, 2.0, 1024.0]))
def test_the_scale_of_the_residuals_does_not_matter(fresh: list[float], held: list[float], scale: float) -> None:
    """A model whose states are larger by a factor has a threshold that is larger by it: ratios alone count."""
    scaled = calibrate([scale * each for each in fresh], [scale * each for each in held])
    assert scaled == pytest.approx(scale * calibrate(fresh, held), abs=1e-300)


@given(history, history, st.randoms())
def test_the_order_of_a_short_history_does_not_matter(fresh: list[float], held: list[float], random) -> None:
    """Residuals of one version have no order."""
    threshold = calibrate(fresh, held)
    random.shuffle(fresh)
    random.shuffle(held)
    assert calibrate(fresh, held) == threshold


def test_old_residuals_count_no_more() -> None:
    """Only the newest say what this model, after so many rounds, is like."""
    assert calibrate([1.0] * NEWEST + [9.0] * NEWEST, [0.5] * NEWEST + [3.0] * NEWEST) == 6.0


@pytest.mark.parametrize(("fresh", "held"), [([], []), ([5.0] * 99, [1.0] * (LEAST - 1)), ([5.0] * 3, [1.0] * 99)])
def test_without_a_history_only_what_needs_no_search_is_known(fresh: list[float], held: list[float]) -> None:
    """The threshold is 0, which is the residual of an edit whose search stopped at once."""
    threshold = calibrate(fresh, held)
    assert threshold == 0
    assert known(RIGHT, 0.0, threshold)
    assert not known(RIGHT, 1e-9, threshold)


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (RIGHT, True),
        (replace(RIGHT, success=Kinds(None, None, None)), True),
        (replace(RIGHT, accuracy=Kinds(0.5, None, None)), False),
        (replace(RIGHT, success=Kinds(0.0, None, None)), False),
    ],
    ids=["right", "no other target to compare with", "a token is wrong", "the true target is likelier"],
)
def test_what_the_model_does_not_answer_is_not_known(score: EditScore, expected: bool) -> None:
    """However small its residual: all of the target's tokens come first, and it is likelier than the true one."""
    assert known(score, 0.0, 1.0) is expected


@given(keys, st.integers(0, 99), st.integers(0, 40), st.randoms())
def test_a_version_has_one_sample(names: list[str], version: int, most: int, random) -> None:
    """Asked again after a kill, with the keys in any order, the same edits are looked at; never more than allowed."""
    chosen = retention.sample(names, version, most)
    assert chosen <= set(names)
    assert len(chosen) == min(most, len(names))
    random.shuffle(names)
    assert retention.sample(names, version, most) == chosen


def test_another_version_has_another_sample() -> None:
    """In time every edit is looked at: a tenth a version leaves hardly one in a hundred out of sixty."""
    names = [f"key-{number}" for number in range(200)]
    seen = set().union(*(retention.sample(names, version, 20) for version in range(60)))
    assert len(seen) >= 195


@given(st.dictionaries(st.text(max_size=5), st.booleans(), max_size=30))
def test_what_does_not_take_any_more_is_forgotten(took: dict[str, bool]) -> None:
    """Each edit of the sample is held or forgotten, by whether it takes on the new weights."""
    found = retention.judged({key: {"took": each, "ES": float(each)} for key, each in took.items()})
    assert found.tested == len(took)
    assert set(found.forgotten) == {key for key, each in took.items() if not each}
    assert all(each["took"] for each in found.held.values())


def test_the_sample_for_residuals_is_enough_of_a_history() -> None:
    """One merge whose edits took gives held residuals enough to draw a threshold from."""
    assert screening.SAMPLE >= LEAST
