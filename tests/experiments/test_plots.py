"""What every plot of a study has in common."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from collabedit.experiments.studies.plots import lines


@pytest.mark.parametrize("last", [2, 5, 12])
def test_counts_are_marked_at_whole_numbers(last: int) -> None:
    """Rounds, parties and edits come in whole numbers, and so do the marks of their axis, however few there are."""
    axes = Figure().subplots()
    lines(axes, [{"method": "collabedit", "round": at, "Score": 0.5} for at in range(1, last + 1)], "round", "Score")
    marks = axes.get_xticks()
    assert all(mark == round(mark) for mark in marks)


def test_shares_are_marked_in_between() -> None:
    """An axis of fractions keeps its fractional marks."""
    axes = Figure().subplots()
    lines(axes, [{"method": "collabedit", "share": at / 4, "Score": 0.5} for at in range(5)], "share", "Score")
    assert any(mark != round(mark) for mark in axes.get_xticks())
