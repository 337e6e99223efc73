"""When the server warns that merged edits are forgotten."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from collabedit.server.retention import FALL, LAST, LEAST, fall
from collabedit.server.store import Retention


def curve(*rates: float, tested: int = 1000, clients: int = 3) -> list[Retention]:
    """Versions from 1 on of which these shares hold."""
    return [Retention(at, clients, tested, round(rate * tested)) for at, rate in enumerate(rates, 1)]


def test_a_fall_is_told_with_its_figures() -> None:
    """By how much, since which version, of how many edits."""
    found = fall(curve(0.95, 0.97, 0.96, 0.90))
    assert found is not None
    assert (found.best.version, found.now.version) == (2, 4)
    assert "from 97.0% on version 2 to 90.0% on version 4 (900 of 1000 edits hold)" in found.line
    assert "\n" not in found.line


@given(st.lists(st.floats(0, 1), max_size=6), st.floats(0, 1))
def test_what_does_not_fall_is_not_warned_of(rates: list[float], last: float) -> None:
    """Whatever came before: a rate within the share of the best one is no fall, and a rise is none."""
    best = max(rates, default=0.0)
    if last >= best - FALL:
        assert fall(curve(*rates, last)) is None


def test_few_edits_say_nothing() -> None:
    """Of either version; and what chance does to a few dozens is no fall."""
    assert fall(curve(1.0, 0.5, tested=LEAST - 1)) is None
    assert fall([*curve(1.0), Retention(2, 3, LEAST - 1, 0)]) is None
    assert fall(curve(0.9, 0.8, tested=LEAST)) is None
    assert fall(curve(0.9, 0.8)) is not None
    assert fall(curve(0.9, 0.3, tested=LEAST)) is not None


def test_the_newest_counts_when_all_have_told() -> None:
    """Until then the version before it is judged; a version that is not the newest is judged as it is."""
    first_to_tell = Retention(3, 1, 1000, 500)
    assert fall([*curve(0.95, 0.95), first_to_tell]) is None
    found = fall([*curve(0.95, 0.8), first_to_tell])
    assert found is not None
    assert found.now.version == 2
    assert fall([*curve(0.95, 0.95), Retention(3, 3, 1000, 500)]) is not None


def test_what_was_long_ago_is_over() -> None:
    """The best is looked for among the last versions alone."""
    assert fall(curve(0.99, *[0.8] * (LAST - 1), 0.8)) is not None
    assert fall(curve(0.99, *[0.8] * LAST, 0.8)) is None


def test_nothing_told() -> None:
    """No version, one, or versions without tests."""
    assert fall([]) is None
    assert fall(curve(0.5)) is None
    assert fall(curve(1.0, 1.0, tested=0)) is None
