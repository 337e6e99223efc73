"""Tables on standard output, as every command prints them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

PLAIN_WIDTH: Final = 160  # columns of a table that is not on a terminal


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str = "") -> None:
    """A table on standard output; the first column to the left, figures to the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", title_style="", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        figures = index and all(isinstance(row[index], int | float | None) for row in rows)
        table.add_column(column, justify="right" if figures else "left", overflow="fold")
    for row in rows:
        table.add_row(*(shown(value) for value in row))
    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    Console(file=sys.stdout, width=width, markup=False, emoji=False, highlight=False).print(table)


def shown(value: Any) -> str:
    """One cell: figures to four digits, small ones in scientific form, None as a dash."""
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}" if value == 0 or abs(value) >= 1e-3 else f"{value:.1e}"
    return str(value)
