"""Tables on standard output, as every command prints them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

PLAIN_WIDTH: Final = 160  # columns of a table that is not on a terminal
LONG: Final = 200  # rows; rich takes a ms and more for each
GAP: Final = "  "


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str = "") -> None:
    """A table on standard output; the first column to the left, figures to the right.

    Cells are folded where a row is wider than the terminal; of a long table each row is one line.
    """
    figures = [
        index > 0 and all(isinstance(row[index], int | float | None) for row in rows) for index in range(len(columns))
    ]
    cells = [[shown(value) for value in row] for row in rows]
    if len(rows) > LONG:
        _print_lines([columns, *cells], figures, title)
    else:
        _print_folded(columns, cells, figures, title)


def _print_lines(rows: Sequence[Sequence[str]], figures: Sequence[bool], title: str) -> None:
    from rich.cells import cell_len

    def padded(text: str, width: int, right: bool) -> str:
        space = " " * (width - cell_len(text))
        return space + text if right else text + space

    rows = [[" ".join(text.splitlines()) for text in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines = [GAP.join(map(padded, row, widths, figures)).rstrip() for row in rows]
    sys.stdout.write("".join(f"{line}\n" for line in ([title, *lines] if title else lines)))


def _print_folded(columns: Sequence[str], cells: Sequence[Sequence[str]], figures: Sequence[bool], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", title_style="", box=None, pad_edge=False)
    for column, right in zip(columns, figures, strict=True):
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for row in cells:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    Console(file=sys.stdout, width=width, markup=False, emoji=False, highlight=False).print(table)


def shown(value: Any) -> str:
    """One cell: figures to four digits, small ones in scientific form, None as a dash."""
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}" if value == 0 or abs(value) >= 1e-3 else f"{value:.1e}"
    return str(value)
