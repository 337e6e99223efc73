"""Tables on standard output."""

from __future__ import annotations

import pytest

from collabedit.common import tables
from collabedit.common.tables import print_table

COLUMNS = ("edit", "line", "subject", "right")
ROWS = [["a", 1, "Anna", 0.5], ["b-12", 20, "東京タワー", None], ["", None, "[bold]x[/bold] :smile:", 1e-9]]


def printed(capsys: pytest.CaptureFixture[str], rows: list[list], **how: str) -> list[str]:
    """The lines of a table, without what is blank at their ends."""
    print_table(COLUMNS, rows, **how)
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("how", [{}, {"title": "Two [of] them"}])
def test_a_long_table_looks_as_a_short_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, how: dict[str, str]
) -> None:
    """Thousands of rows are written without rich, which would take many seconds: the same columns, to the letter."""
    short = printed(capsys, ROWS, **how)
    monkeypatch.setattr(tables, "LONG", 0)
    assert printed(capsys, ROWS, **how) == short
    assert "東京タワー" in short[-2]


def test_each_row_of_a_long_table_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However wide it is, and whatever its text holds: so it can be searched by lines."""
    monkeypatch.setattr(tables, "LONG", 0)
    rows = [["a", 1, "two\nlines " + 99 * "and more ", 0.5], ["b", 2, "", 1.0]]
    lines = printed(capsys, rows)
    assert len(lines) == 3
    assert "two lines and more" in lines[1]
