"""β0 and β1 of eq. 7: what they do to the first round's edits, to the last one's, and to neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from collabedit.experiments.intervals import differences
from collabedit.experiments.many_rounds import Dynamics
from collabedit.experiments.studies.continual import Continual, part, pooled
from collabedit.experiments.studies.measured import figures
from collabedit.experiments.studies.plots import fractions, legend, lines
from collabedit.experiments.studies.settings import AblationBetaSettings
from collabedit.experiments.studies.study import Cell, Place, Study, Work
from collabedit.experiments.studies.tables import INTERVALS, Row, Table, table_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BETA1: Final = ("0", "0.3", "1", "3", "10", "lambda")
BETA0: Final = ("0.1", "10")  # beside 1; with β1 = 1
DEFAULT: Final = (1.0, 1.0)  # β0 and β1 of a federation that says nothing else
OF: Final = {"first round": "the first round", "last round": "the last round", "all rounds": "all rounds"}
GROUPS: Final = tuple(OF)
BESIDE: Final = "beside β1 = 1"


class AblationBeta(Study[AblationBetaSettings]):
    """A cell is a pair of β0 and β1 through all rounds of one deal of edits; the deals are pooled."""

    name: ClassVar[str] = "ablation-beta"
    title: ClassVar[str] = "Ablation: the weights of the dynamic C"
    text: ClassVar[str] = """\
C = β0·λ·C0 + β1·ΣS (eq. 7). A greater β1 guards the edits of earlier rounds against later ones; too great a one keeps
later rounds from being learned. β1 = 0 is the immutable C; the paper's published code has β1 = λ. A greater β0 guards
what the model knew before any edit, which NS tells. Edits are those of the first, the last and all rounds, scored
after the last. Every party finds z on the weights that the round before left, as clients do (`--z once`: on the
unedited model). All pairs get the same deals of edits; "beside β1 = 1" is the Score less that of β0 = β1 = 1, paired:
its interval is from resamples that take the same edits of both.

Chosen for federations is β0 = β1 = 1, the server's default. On the bundled model no other pair has a greater Score over
the edits of all rounds; 0.3 and 3 cannot be told from 1. β1 = 10 and β1 = λ keep more of the first round, and lose more
than that in the last one ([decision](adr/0024-the-weight-of-earlier-rounds-is-one.md))."""

    def keys(self, settings: AblationBetaSettings) -> Sequence[str]:
        """`1/0/5`, …: β0, β1 and the deal's seed; `lambda` is the model's λ."""
        pairs = [*(("1", beta1) for beta1 in BETA1), *((beta0, "1") for beta0 in BETA0)]
        return [f"{beta0}/{beta1}/{settings.seed + each}" for each in range(settings.seeds) for beta0, beta1 in pairs]

    def begin(self, settings: AblationBetaSettings, place: Place) -> Work:
        """Each cell starts from the unedited model."""
        federation = Continual.of(settings, place)
        weight = federation.bench.hparams.mom2_update_weight

        def work(key: str) -> Cell:
            beta0, name, seed = key.split("/")
            deal = federation.dealt(int(seed))
            beta1 = weight if name == "lambda" else float(name)
            with federation.rounds(deal, "collabedit", Dynamics(float(beta0), beta1), f"β0/β1/deal {key}") as steps:
                for _ in steps:
                    pass
                return {"beta0": float(beta0), "beta1": float(beta1), "scores": federation.score(deal)}

        return work

    def rows(self, settings: AblationBetaSettings, cells: Mapping[str, Cell]) -> list[Row]:
        """One for each group and pair, over the edits of all deals."""
        pairs: dict[tuple[float, float], list[Mapping[str, Any]]] = {}
        for cell in cells.values():
            pairs.setdefault((cell["beta0"], cell["beta1"]), []).append(cell["scores"])
        rows: list[Row] = []
        for group in GROUPS:
            scores = {
                pair: pooled([_grouped(own, group, settings.rounds) for own in each]) for pair, each in pairs.items()
            }
            for (beta0, beta1), own in scores.items():
                found = figures(own, settings.seed)
                beside = differences(own, scores[DEFAULT], seed=settings.seed)["Score"]
                bounds = {**found[INTERVALS], BESIDE: [beside.low, beside.high]}
                at = {"method": group, "beta0": beta0, "beta1": beta1}
                rows.append({**at, **found, BESIDE: beside.value, INTERVALS: bounds})
        return rows

    def tables(self, settings: AblationBetaSettings, rows: Sequence[Row]) -> list[Table]:
        """One a group."""
        columns = [name for name in rows[0] if name not in ("method", INTERVALS)]
        return [
            table_of([row for row in rows if row["method"] == group], columns, title=f"Edits of {OF[group]}")
            for group in GROUPS
        ]

    def notes(self, settings: AblationBetaSettings, rows: Sequence[Row]) -> Sequence[str]:
        """How many rounds, edits and deals the figures are of."""
        return (
            f"{settings.rounds} rounds of {settings.parties} parties with {settings.edits_per_party} edits each;"
            f" {settings.seeds} deals.",
        )

    def draw(self, settings: AblationBetaSettings, rows: Sequence[Row], figure: Figure) -> None:
        """Each figure against β1, where β0 is 1; a line a group."""
        kinds = [kind for kind in ("ES", "EA", "PS", "PA", "NS", "NA", "Score") if kind in rows[0]]
        figure.set_size_inches(13, 4)
        panels = figure.subplots(1, len(kinds), sharey=True)
        own = [row for row in rows if row["beta0"] == 1.0]
        weights = sorted({row["beta1"] for row in own})
        for axes, kind in zip(panels, kinds, strict=True):
            lines(axes, own, "beta1", kind)
            fractions(axes)
            axes.set_xscale("symlog", linthresh=0.3, linscale=0.5)
            axes.set_xticks(weights, [f"{weight:g}" for weight in weights])
            axes.minorticks_off()
            axes.set_xlim(-0.05, 1.5 * weights[-1])
            axes.set_title(kind, fontsize=11)
            axes.set_xlabel("β1")
        legend(figure, panels[0])


def _grouped(scores: Mapping[str, Any], group: str, rounds: int) -> Cell:
    """The edits of the first, the last or all rounds of one deal."""
    each = len(scores["edits"]) // rounds
    chosen = {"first round": slice(each), "last round": slice(-each, None), "all rounds": slice(None)}[group]
    return part(scores, chosen)


ABLATION_BETA: Final = AblationBeta()
