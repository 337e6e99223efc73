"""Rounds of fresh edits: CollabEdit beside one party with everything, and the naive merges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from collabedit.experiments.baselines import NAIVE
from collabedit.experiments.many_rounds import Dynamics
from collabedit.experiments.studies.continual import Continual, pooled
from collabedit.experiments.studies.measured import figures
from collabedit.experiments.studies.plots import fractions, legend, lines
from collabedit.experiments.studies.settings import RoundsSettings
from collabedit.experiments.studies.study import Cell, Place, Study, Work
from collabedit.experiments.studies.tables import Row, Table, across

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS: Final = ("collabedit", "global-edit", *NAIVE)
OF: Final = {"new": "this round's edits", "so far": "the edits of all rounds so far"}


class Rounds(Study[RoundsSettings]):
    """A cell is a method through all rounds."""

    name: ClassVar[str] = "rounds"
    title: ClassVar[str] = "Rounds: fresh edits in each"
    text: ClassVar[str] = """\
Every round, every party brings edits that no round has had, and finds z on the weights that the round before left
(`--z once`: on the unedited model). `collabedit` and `global-edit` use the dynamic C of eq. 7; the naive merges
know no S, and their C stays λ·C0. The left panel has the Score of the round's own edits, the right one that of all
edits so far.

The paper has no such table: its Tables 1 to 3 are of a single round, and its Table 5, of many rounds, has no merge in
it. Numbers of rounds, parties and edits are therefore ours. Each round is small beside Table 1's: 4 parties with 10
edits each by default, where the paper's single round has 10 with 500."""

    def keys(self, settings: RoundsSettings) -> Sequence[str]:
        """The methods."""
        return METHODS

    def begin(self, settings: RoundsSettings, place: Place) -> Work:
        """All methods get the same edits; z are their own where they are found on the round's weights."""
        federation = Continual.of(settings, place)
        deal, dynamics = federation.dealt(settings.seed), Dynamics(settings.beta0, settings.beta1)

        def work(method: str) -> Cell:
            found: dict[str, Any] = {"new": [], "so far": []}
            with federation.rounds(deal, method, dynamics, method) as steps:
                for number in steps:
                    scores = federation.score(deal[:number])
                    new = len(scores["edits"]) // number
                    own = {**scores, "edits": scores["edits"][-new:]}
                    for of, each in (("new", own), ("so far", scores)):
                        found[of].append(figures(pooled([each]), settings.seed))
            return found

        return work

    def rows(self, settings: RoundsSettings, cells: Mapping[str, Cell]) -> list[Row]:
        """One for each method, round and kind of edits."""
        return [
            {"method": method, "of": of, "round": number, **figure}
            for method, cell in cells.items()
            for of in OF
            for number, figure in enumerate(cell[of], start=1)
        ]

    def tables(self, settings: RoundsSettings, rows: Sequence[Row]) -> list[Table]:
        """Score by round and method."""
        return [across(_of(rows, of), "round", title=f"Score of {what}") for of, what in OF.items()]

    def draw(self, settings: RoundsSettings, rows: Sequence[Row], figure: Figure) -> None:
        """A panel each."""
        figure.set_size_inches(10.5, 4.4)
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (of, what) in zip(panels, OF.items(), strict=True):
            lines(axes, _of(rows, of), "round", "Score")
            fractions(axes, "Score")
            axes.set_xlabel("round")
            axes.set_title(what, fontsize=11)
        legend(figure, panels[0])


def _of(rows: Sequence[Row], of: str) -> list[Row]:
    return [row for row in rows if row["of"] == of]


ROUNDS: Final = Rounds()
