"""Plots in one style: PNG files whose bytes depend on the figures alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from collabedit.common.files import write_durably
from collabedit.experiments.studies.tables import INTERVALS, Row

SIZE: Final = (8.0, 4.6)  # inches
DOTS_PER_INCH: Final = 130
# Colours that people with the commonest colour blindness tell apart (Okabe and Ito), and a marker each.
STYLES: Final[Mapping[str, tuple[str, str]]] = {
    "unedited": ("#999999", "x"),
    "collabedit": ("#0072B2", "o"),
    "global-edit": ("#000000", "+"),
    "task-arithmetic": ("#E69F00", "s"),
    "simple-average": ("#009E73", "^"),
    "ties": ("#CC79A7", "v"),
    "measured": ("#0072B2", "o"),
    "eq. 6": ("#D55E00", "+"),
    "immutable − dynamic": ("#000000", "D"),
}
BENEATH: Final = frozenset({"global-edit", "eq. 6"})  # others are to lie on them: drawn larger, beneath
FURTHER: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
MARKERS: Final = ("o", "s", "^", "v", "D", "P", "x")


def picture(path: Path, draw: Callable[[Figure], None]) -> None:
    """Writes what `draw` puts on a figure, durably."""
    figure = Figure(figsize=SIZE, layout="constrained")
    draw(figure)
    memory = BytesIO()
    figure.savefig(memory, dpi=DOTS_PER_INCH, format="png", metadata={"Software": "collabedit"})
    write_durably(path, memory.getvalue())


def style(method: str, index: int = 0) -> tuple[str, str]:
    """Colour and marker of a method, or of what is not one by its number."""
    return STYLES.get(method, (FURTHER[index % len(FURTHER)], MARKERS[index % len(MARKERS)]))


def lines(axes: Axes, rows: Sequence[Row], x: str, y: str, by: str = "method") -> None:
    """One line for each value of `by`, with its intervals as a band; rows without y are left out.

    Where x is a count (rounds, parties, edits) the axis is marked at whole numbers only.
    """
    for index, name in enumerate(dict.fromkeys(row[by] for row in rows)):
        own = [row for row in rows if row[by] == name and row.get(y) is not None]
        colour, marker = style(str(name), index)
        under = name in BENEATH
        axes.plot(
            [row[x] for row in own], [row[y] for row in own], color=colour, marker=marker, label=str(name),
            markersize=12 if under else 6, markeredgewidth=2 if under else 1, linewidth=1.5, zorder=1 if under else 2,
            linestyle="--" if under else "-",
        )  # fmt: skip
        banded = [(row[x], *row[INTERVALS][y]) for row in own if (row.get(INTERVALS) or {}).get(y)]
        if banded:
            at, low, high = zip(*banded, strict=True)
            axes.fill_between(at, low, high, color=colour, alpha=0.12, linewidth=0)
    if all(isinstance(row[x], int) for row in rows):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def bars(axes: Axes, rows: Sequence[Row], kinds: Sequence[str], by: str = "method") -> None:
    """A group of bars for each of `kinds`, a bar for each row, with its interval."""
    width = 0.84 / max(1, len(rows))
    for index, row in enumerate(rows):
        colour, _ = style(str(row[by]), index)
        places = [group + (index - (len(rows) - 1) / 2) * width for group in range(len(kinds))]
        heights = [row.get(kind) or 0.0 for kind in kinds]
        axes.bar(places, heights, 0.92 * width, color=colour, label=str(row[by]))
        for place, kind, height in zip(places, kinds, heights, strict=True):
            bounds = (row.get(INTERVALS) or {}).get(kind)
            if bounds and bounds[0] < bounds[1]:
                apart = [[max(0.0, height - bounds[0])], [max(0.0, bounds[1] - height)]]
                axes.errorbar([place], [height], yerr=apart, color="#333333", linewidth=1, capsize=1.5)
    axes.set_xticks(range(len(kinds)), list(kinds))


def fractions(axes: Axes, what: str = "") -> None:
    """The vertical axis from 0 to 1, with a light grid."""
    axes.set_ylim(-0.03, 1.05)
    axes.set_ylabel(what)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def legend(figure: Figure, axes: Any, columns: int = 6) -> None:
    """One legend below all panels."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


def counted(axes: Axes, counts: Sequence[int], what: str) -> None:
    """Counts on a logarithmic horizontal axis, each marked; Score from 0 to 1 on the vertical one."""
    fractions(axes, "Score")
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_xlabel(what)
