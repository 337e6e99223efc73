"""Table 5: what many rounds leave of the first round's edits, with immutable C and with dynamic C (eq. 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from collabedit.client.metrics import Scores
from collabedit.experiments.intervals import Interval, differences, weighted_sums
from collabedit.experiments.many_rounds import Dynamics
from collabedit.experiments.studies.continual import Continual, pooled
from collabedit.experiments.studies.measured import figures
from collabedit.experiments.studies.plots import fractions, legend, lines
from collabedit.experiments.studies.settings import Table5Settings
from collabedit.experiments.studies.study import Cell, Place, Study, Work
from collabedit.experiments.studies.tables import INTERVALS, Row, Table, across, shown, table_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IMMUTABLE, DYNAMIC = "immutable C", "dynamic C"
LOST, SPARED = "lost", "spared"
DIFFERENCE: Final = "immutable − dynamic"


class Table5(Study[Table5Settings]):
    """A cell is a way of C with one deal of edits; the deals are pooled."""

    name: ClassVar[str] = "table5"
    title: ClassVar[str] = "Table 5: forgetting"
    text: ClassVar[str] = """\
The first round's edits, scored after it and after each further round of fresh ones that contradict none of them. With
the immutable C, every round stands on λ·C0; with the dynamic C, on β0·λ·C0 + β1·ΣS of the rounds before (eq. 7). "lost"
is the Score right after the first round less the present one. "spared" is what the immutable C has lost less what the
dynamic C has. Both ways get the same deals, so their edits are paired: each resample takes the same edits of both ways,
at both times, and the intervals of "lost" and "spared" are of the differences themselves. They are over the edits of
all deals. Every party finds z on the weights that the round before left, as clients do.

The paper's Table 5 has the two ends of some thousand rounds, each one global edit by MEMIT. Here rounds are merges of
several parties, fewer, and each of them large beside the model: what is lost in a round is more than the paper's."""

    def keys(self, settings: Table5Settings) -> Sequence[str]:
        """`immutable C/0`, …: the way, and the deal's seed."""
        return [f"{way}/{settings.seed + each}" for each in range(settings.seeds) for way in (IMMUTABLE, DYNAMIC)]

    def begin(self, settings: Table5Settings, place: Place) -> Work:
        """Each cell starts from the unedited model."""
        federation = Continual.of(settings, place)

        def work(key: str) -> Cell:
            way, _, seed = key.partition("/")
            deal = federation.dealt(int(seed))
            dynamics = Dynamics(settings.beta0, settings.beta1) if way == DYNAMIC else Dynamics(1.0, 0.0)
            with federation.rounds(deal, "collabedit", dynamics, key) as steps:
                return {"after": [federation.score(deal[:1]) for _ in steps]}

        return work

    def rows(self, settings: Table5Settings, cells: Mapping[str, Cell]) -> list[Row]:
        """One for each way and round; figures of the first round's edits of all deals. dynamic C's have `spared`."""
        after = {
            way: [pooled([own["after"][number] for own in _of(way, cells)]) for number in range(settings.rounds)]
            for way in (IMMUTABLE, DYNAMIC)
        }
        rows: list[Row] = []
        for way, scores in after.items():
            for number, now in enumerate(scores):
                found = {LOST: differences(scores[0], now, seed=settings.seed)["Score"]}
                if way == DYNAMIC:
                    found[SPARED] = _spared(after, number, settings.seed)
                own = figures(now, settings.seed)
                bounds = {**own[INTERVALS], **{name: [each.low, each.high] for name, each in found.items()}}
                values = {name: each.value for name, each in found.items()}
                rows.append({"method": way, "round": number + 1, **own, **values, INTERVALS: bounds})
        return rows

    def tables(self, settings: Table5Settings, rows: Sequence[Row]) -> list[Table]:
        """The paper's figures at both ends; the Score after each round; what was lost since the first, paired."""
        ends = [row for row in rows if row["round"] in (1, settings.rounds)]
        columns = [name for name in ends[0] if name not in (INTERVALS, SPARED)]
        return [
            table_of(ends, columns, title="The first round's edits"),
            across(rows, "round", title="Their Score"),
            across([*rows, *_differences(rows)], "round", LOST, title="Lost of their Score since round 1, paired"),
        ]

    def notes(self, settings: Table5Settings, rows: Sequence[Row]) -> Sequence[str]:
        """How many rounds there were, and what they have shown."""
        immutable, dynamic = rows[settings.rounds - 1 :: settings.rounds]
        return (
            f"{settings.rounds} rounds of {settings.parties} parties with {settings.edits_per_party} edits each;"
            f" {_count(settings.seeds, 'deal')}, {settings.seeds * settings.parties * settings.edits_per_party:,} edits"
            f" of first rounds. After round {settings.rounds} these have lost {_said(immutable, LOST)} of their Score"
            f" with the immutable C, and {_said(dynamic, LOST)} with the dynamic C (β0 = {settings.beta0:g},"
            f" β1 = {settings.beta1:g}): it spares them {_said(dynamic, SPARED)}.",
        )

    def draw(self, settings: Table5Settings, rows: Sequence[Row], figure: Figure) -> None:
        """A panel for each figure, a line for each way; and what the dynamic C spares."""
        kinds = [kind for kind in ("ES", "EA", "PS", "PA", "NS", "NA", "Score") if kind in rows[0]]
        figure.set_size_inches(14.5, 3.9)
        panels = figure.subplots(1, len(kinds) + 1)
        for axes, kind in zip(panels, kinds, strict=False):
            lines(axes, rows, "round", kind)
            fractions(axes)
            axes.set_title(kind, fontsize=11)
        lines(panels[-1], [{**row, "method": DIFFERENCE} for row in _differences(rows)], "round", LOST)
        panels[-1].axhline(0, color="#999999", linewidth=0.8)
        panels[-1].set_title("Score spared by the dynamic C", fontsize=11)
        panels[-1].grid(axis="y", color="#dddddd", linewidth=0.6)
        for axes in panels:
            axes.set_xlabel("after round")
        legend(figure, panels[0])


def _of(way: str, cells: Mapping[str, Cell]) -> list[Cell]:
    return [cell for key, cell in cells.items() if key.startswith(f"{way}/")]


def _spared(after: Mapping[str, Sequence[Scores]], number: int, seed: int) -> Interval:
    """(immutable's first − its present) − (dynamic's first − its present), Scores of the same resamples."""
    terms = [(sign * at, after[way][n]) for way, sign in ((IMMUTABLE, 1.0), (DYNAMIC, -1.0))
             for at, n in ((1.0, 0), (-1.0, number))]  # fmt: skip
    return weighted_sums(terms, seed=seed)["Score"]


def _differences(rows: Sequence[Row]) -> list[Row]:
    """What is spared, as rows of what is lost."""
    own = [row for row in rows if SPARED in row]
    return [
        {"method": DIFFERENCE, "round": row["round"], LOST: row[SPARED], INTERVALS: {LOST: row[INTERVALS][SPARED]}}
        for row in own
    ]


def _said(row: Mapping[str, Any], name: str) -> str:
    low, high = row[INTERVALS][name]
    return f"{shown(row[name])} [{shown(low)}, {shown(high)}]"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


TABLE5: Final = Table5()
