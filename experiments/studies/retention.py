"""Retention: after each of many rounds, how many of all earlier edits still hold, with immutable and with dynamic C."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Final

from collabedit.client.metrics import score
from collabedit.common.edits import Edit
from collabedit.experiments.intervals import mean_interval
from collabedit.experiments.many_rounds import Dynamics
from collabedit.experiments.studies.continual import Continual, flat
from collabedit.experiments.studies.measured import figures
from collabedit.experiments.studies.plots import fractions, legend, lines
from collabedit.experiments.studies.settings import RetentionSettings
from collabedit.experiments.studies.study import Cell, Place, Study, Work
from collabedit.experiments.studies.tables import INTERVALS, Row, Table, across, shown, table_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IMMUTABLE, DYNAMIC = "immutable C", "dynamic C"
DIFFERENCE: Final = "dynamic − immutable"
HELD, SAID = "held", "said first"
AGES: Final = 6  # groups of rounds at the end
TOLD: Final = 10  # lines of the table of rounds


class Retention(Study[RetentionSettings]):
    """A cell is a way of C through all rounds."""

    name: ClassVar[str] = "retention"
    title: ClassVar[str] = "Retention over many rounds"
    text: ClassVar[str] = """\
Every round brings fresh edits that contradict no earlier one; after it, all edits of all rounds so far are asked. An
edit is `held` where its target is likelier than what was true, and `said first` where each token of the target is the
model's first choice. With the immutable C, every round stands on λ·C0; with the dynamic C, on β0·λ·C0 + β1·ΣS of the
rounds before (eq. 7). Both ways get the same edits, and their difference is of pairs. Intervals are over the edits so
far. The right panel has the edits by the round that merged them, after the last round."""

    def keys(self, settings: RetentionSettings) -> Sequence[str]:
        """The two ways."""
        return (IMMUTABLE, DYNAMIC)

    def begin(self, settings: RetentionSettings, place: Place) -> Work:
        """Each way starts from the unedited model."""
        federation = Continual.of(settings, place)
        deal = federation.dealt(settings.seed)

        def work(way: str) -> Cell:
            dynamics = Dynamics(settings.beta0, settings.beta1) if way == DYNAMIC else Dynamics(1.0, 0.0)
            with federation.rounds(deal, "collabedit", dynamics, way) as steps:
                after = [_asked(federation, flat(deal[:number])) for number in steps]
                return {"after": after, "end": figures(score(federation.bench.loaded, flat(deal)), settings.seed)}

        return work

    def rows(self, settings: RetentionSettings, cells: Mapping[str, Cell]) -> list[Row]:
        """For each way, and the difference: a row a round, a row a group of rounds after the last, one of the end."""
        rows: list[Row] = []
        for way in (IMMUTABLE, DYNAMIC, DIFFERENCE):
            after = [_values(cells, way, number) for number in range(settings.rounds)]
            for number, values in enumerate(after, start=1):
                rows.append({"method": way, "round": number, **_means(values, settings.seed)})
            for first, last in _ages(settings.rounds):
                own = {kind: each[slice(*_edits(settings, first, last))] for kind, each in after[-1].items()}
                rows.append({"method": way, "merged in": last, **_means(own, settings.seed)})
        return [*rows, *({"method": way, **cells[way]["end"]} for way in (IMMUTABLE, DYNAMIC))]

    def tables(self, settings: RetentionSettings, rows: Sequence[Row]) -> list[Table]:
        """Retention by round, some of them; by age after the last; and the metrics of all edits then."""
        step = max(1, settings.rounds // TOLD)
        by_round = [row for row in rows if "round" in row]
        told = [row for row in by_round if row["round"] % step == 0 or row["round"] in (1, settings.rounds)]
        ages = [row for row in rows if "merged in" in row]
        return [
            across(told, "round", HELD, title="Share of all edits so far that are held"),
            across(told, "round", SAID, title="Share that is said first"),
            across(ages, "merged in", HELD, title=f"Held after round {settings.rounds}, by the rounds up to"),
            table_of(_ends(rows), title=f"All edits after round {settings.rounds}"),
        ]

    def notes(self, settings: RetentionSettings, rows: Sequence[Row]) -> Sequence[str]:
        """What is held at the end."""
        end = {row["method"]: row for row in rows if row.get("round") == settings.rounds}
        edits = settings.rounds * settings.parties * settings.edits_per_party
        return (
            f"{settings.rounds} rounds of {settings.parties} parties with {settings.edits_per_party} edits each."
            f" Of {edits:,} edits, {_said(end[IMMUTABLE], HELD)} are held at the end with the immutable C and"
            f" {_said(end[DYNAMIC], HELD)} with the dynamic C (β0 = {settings.beta0:g}, β1 = {settings.beta1:g});"
            f" the difference is {_said(end[DIFFERENCE], HELD)}; of what is said first,"
            f" {_said(end[DIFFERENCE], SAID)}.",
        )

    def draw(self, settings: RetentionSettings, rows: Sequence[Row], figure: Figure) -> None:
        """Held and said first by round, their difference, and held by age."""
        figure.set_size_inches(14.5, 4.1)
        panels = figure.subplots(1, 4)
        ways = [row for row in rows if row["method"] != DIFFERENCE]
        for axes, kind in zip(panels, (HELD, SAID), strict=False):
            lines(axes, [row for row in ways if "round" in row], "round", kind)
            axes.set_title(f"{kind}: all edits so far", fontsize=11)
        lines(panels[2], [row for row in rows if row["method"] == DIFFERENCE and "round" in row], "round", SAID)
        panels[2].axhline(0, color="#999999", linewidth=0.8)
        panels[2].set_title(f"{SAID}: {DIFFERENCE}", fontsize=11)
        panels[2].grid(axis="y", color="#dddddd", linewidth=0.6)
        lines(panels[3], [row for row in ways if "merged in" in row], "merged in", SAID)
        panels[3].set_title(f"{SAID} after round {settings.rounds}", fontsize=11)
        for axes in panels:
            axes.set_xlabel("round" if axes is not panels[3] else "merged in the rounds up to")
            for line in axes.lines:
                line.set_markersize(3 if axes is not panels[3] else 6)
        for axes in (panels[0], panels[1], panels[3]):
            fractions(axes)
        legend(figure, panels[0])


def _asked(federation: Continual, edits: Sequence[Edit]) -> dict[str, str]:
    """A 0 or 1 for each edit, of its own prompt alone."""
    alone = {"paraphrase_prompts": (), "neighborhood_prompts": (), "unrelated": ()}
    found = score(federation.bench.loaded, [edit.model_copy(update=alone) for edit in edits]).edits
    return {
        HELD: "".join(str(int(each.succeeded)) for each in found),
        SAID: "".join(str(int(each.correct == 1.0)) for each in found),
    }


def _values(cells: Mapping[str, Cell], way: str, number: int) -> dict[str, list[float]]:
    """By kind, a number for each edit after a round (from 0); of the difference 1, 0 or -1."""
    if way == DIFFERENCE:
        one, other = (_values(cells, each, number) for each in (DYNAMIC, IMMUTABLE))
        return {kind: [a - b for a, b in zip(one[kind], other[kind], strict=True)] for kind in one}
    return {kind: [float(mark) for mark in cells[way]["after"][number][kind]] for kind in (HELD, SAID)}


def _means(values: Mapping[str, Sequence[float]], seed: int) -> dict[str, Any]:
    found = {kind: mean_interval(each, seed=seed) for kind, each in values.items()}
    bounds = {kind: [each.low, each.high] for kind, each in found.items()}
    return {**{kind: each.value for kind, each in found.items()}, INTERVALS: bounds}


def _ages(rounds: int) -> list[tuple[int, int]]:
    """Groups of rounds of about the same size: the first and the last of each, from 1."""
    groups = min(AGES, rounds)
    ends = [rounds * group // groups for group in range(groups + 1)]
    return [(begin + 1, end) for begin, end in pairwise(ends)]


def _edits(settings: RetentionSettings, first: int, last: int) -> tuple[int, int]:
    """Where the edits of some rounds begin and end."""
    each = settings.parties * settings.edits_per_party
    return (first - 1) * each, last * each


def _ends(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if "round" not in row and "merged in" not in row]


def _said(row: Mapping[str, Any], name: str) -> str:
    low, high = row[INTERVALS][name]
    return f"{shown(row[name])} [{shown(low)}, {shown(high)}]"


RETENTION: Final = Retention()
