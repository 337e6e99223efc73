"""Figure 3: the residual of edits that are made again and again, beside what eq. 6 says is left of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Final

from torch import Tensor

from collabedit.client.keys import Measured, measure
from collabedit.client.weights import add_update, restored
from collabedit.experiments.baselines import everything_at_once, layer_by_layer, union
from collabedit.experiments.many_rounds import left_over
from collabedit.experiments.studies import records
from collabedit.experiments.studies.field import Field, lay_out
from collabedit.experiments.studies.plots import lines
from collabedit.experiments.studies.settings import Figure3Settings
from collabedit.experiments.studies.study import Cell, Place, Study, Work
from collabedit.experiments.studies.tables import Row, Table, across, table_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS: Final = ("collabedit", "global-edit")
ALONE: Final = "one layer"
PASS: Final = 4096  # padded tokens of a pass where only norms are asked for
AT_PROMPT: Final = (("{}",),)  # context templates: the bare prompt


class Figure3(Study[Figure3Settings]):
    """A cell is a method through all repetitions."""

    name: ClassVar[str] = "figure3"
    title: ClassVar[str] = "Figure 3: edits made again and again"
    text: ClassVar[str] = """\
The same edits, with the same z and the immutable C, are made round after round. `residual` is ‖z − h‖ of all edits
together (Frobenius), before any edit (round 0) and after each round. Eq. 6 says what one step at one layer leaves of
the residual R before it: R − R Kᵀ(C + K Kᵀ)⁻¹K.

Where its premises hold, it holds: `one layer` edits the last of the layers alone, with the bare prompt as the only
context template, by the same merge of the same parties. K is then the same in every round, and eq. 6, applied to the
first residual again and again, says every later one. It also says that the fall slows to a constant pace: what is left
lies ever more in the directions in which C outweighs the keys most.

In MEMIT's setting, all layers and all templates, eq. 6 is held against the last layer's step of each round: `measured`
is the share of the norm that the step left, `eq. 6` the share that it should have. The two differ where K, the mean
over context templates, is not the key of the bare prompt at which h is measured."""

    def keys(self, settings: Figure3Settings) -> Sequence[str]:
        """The methods, and collabedit in one layer."""
        return (*METHODS, ALONE)

    def begin(self, settings: Figure3Settings, place: Place) -> Work:
        """One field for all."""
        field = lay_out(settings, records.dealt(settings, settings.parties, settings.edits_per_party), place)

        def work(method: str) -> Cell:
            own, merge = (one_layer(field), METHODS[0]) if method == ALONE else (field, method)
            with restored(own.bench.loaded, own.bench.weights):
                first = last_layer(own)
                norms, shares = [_norm(own, first)], []
                for number in range(settings.rounds):
                    place.listener.say(f"{method}: round {number + 1} of {settings.rounds}")
                    before, after = step_again(own, merge)
                    norms.append(_norm(own, after))
                    shares.append(shares_left(own, before, after) if before and method != ALONE else None)
            said = said_to_be_left(own, first, settings.rounds) if method == ALONE else None
            return {"residual": norms, "shares": shares, "said": said}

        return work

    def rows(self, settings: Figure3Settings, cells: Mapping[str, Cell]) -> list[Row]:
        """One for each method and round; round 0 is the unedited model. said: by eq. 6 from the first residual."""
        rows: list[Row] = []
        for method, cell in cells.items():
            for number, norm in enumerate(cell["residual"]):
                measured, share = (cell["shares"][number - 1] if number else None) or (None, None)
                said = cell["said"][number] if cell["said"] else None
                at = {"method": method, "round": number, "residual": norm}
                rows.append({**at, "said": said, "measured": measured, "eq. 6": share})
        return rows

    def tables(self, settings: Figure3Settings, rows: Sequence[Row]) -> list[Table]:
        """One layer beside what eq. 6 says, the residuals, and the last layer's steps."""
        steps = [row for row in rows if row["measured"] is not None]
        return [
            across(
                _beside(rows), "round", "residual", title="One layer, keys of the bare prompt: ‖R‖ after each round"
            ),
            across(_of_methods(rows), "round", "residual", title="All layers: ‖z − h‖ after each round"),
            table_of(steps, ["round", "measured", "eq. 6"], title="All layers: what the last one's step leaves of ‖R‖"),
        ]

    def notes(self, settings: Figure3Settings, rows: Sequence[Row]) -> Sequence[str]:
        """How far what is measured lies from what eq. 6 says."""
        apart = max(abs(row["residual"] / row["said"] - 1) for row in rows if row["said"])
        steps = max(abs(row["measured"] - row["eq. 6"]) for row in rows if row["measured"] is not None)
        return (
            f"One layer: in all {settings.rounds} rounds ‖R‖ is what eq. 6 says from the first residual alone, to a"
            f" relative {apart:.0e}. All layers: no step leaves a share that is further than {steps:.3f} from eq. 6's.",
        )

    def draw(self, settings: Figure3Settings, rows: Sequence[Row], figure: Figure) -> None:
        """One layer, all layers, and the shares that steps leave."""
        figure.set_size_inches(13, 4.4)
        panels = figure.subplots(1, 3)
        lines(panels[0], _beside(rows), "round", "residual")
        panels[0].set_title("one layer: ‖R‖", fontsize=11)
        lines(panels[1], _of_methods(rows), "round", "residual")
        panels[1].set_title("all layers: ‖z − h‖", fontsize=11)
        steps = [row for row in rows if row["measured"] is not None]
        shares = [{**row, "method": name, "share": row[name]} for name in ("measured", "eq. 6") for row in steps]
        lines(panels[2], shares, "round", "share")
        panels[2].set_title("all layers: share of ‖R‖ that the last step leaves", fontsize=11)
        panels[2].set_ylim(0, 1.05)
        for axes in panels:
            axes.set_xlabel("round")
            axes.grid(axis="y", color="#dddddd", linewidth=0.6)
            axes.legend(frameon=False, fontsize=9)
        for axes in panels[:2]:
            axes.set_yscale("log")


def one_layer(field: Field) -> Field:
    """The parties on a bench that edits the last layer alone, with keys measured at the bare prompt."""
    bench, weight = field.bench, field.bench.weights[-1]
    hparams = bench.hparams.model_copy(update={"layers": bench.hparams.layers[-1:]})
    return replace(
        field, bench=replace(bench, hparams=hparams, templates=AT_PROMPT, priors={weight: bench.priors[weight]})
    )


def step_again(field: Field, method: str) -> tuple[Measured | None, Measured]:
    """One more round in the model: the last layer before its step, where that is seen, and after it."""
    bench, seen = field.bench, []
    if method == "global-edit":
        update = everything_at_once(bench, field.parties)
    else:
        *earlier, _ = bench.weights
        seen = [last_layer(field)] if not earlier else []
        watched = earlier[-1:]
        update = layer_by_layer(
            bench, field.parties, lambda weight, _: seen.append(last_layer(field)) if weight in watched else None
        )
    for name, delta in update.items():
        add_update(bench.loaded, name, delta)
    return (seen[0] if seen else None), last_layer(field)


def last_layer(field: Field) -> Measured:
    """K of the last edited layer, and h."""
    bench = field.bench
    return measure(bench.loaded, field.edits, bench.hparams, bench.templates, bench.hparams.layers[-1], batch=PASS)


def _residual(field: Field, measured: Measured) -> Tensor:
    return union(field.parties).targets.z.double() - measured.states


def _norm(field: Field, measured: Measured) -> float:
    return float(_residual(field, measured).norm())


def shares_left(field: Field, before: Measured, after: Measured) -> tuple[float, float]:
    """(What the step left, what eq. 6 says it leaves), of the norm before."""
    residual, prior = _residual(field, before), field.bench.priors[field.bench.weights[-1]].dense()
    said = left_over(residual, before.keys, prior)
    return _norm(field, after) / float(residual.norm()), float(said.norm() / residual.norm())


def said_to_be_left(field: Field, first: Measured, rounds: int) -> list[float]:
    """‖R‖ before any round and after each, by eq. 6 from the first residual and the first keys alone."""
    residual, prior = _residual(field, first), field.bench.priors[field.bench.weights[-1]].dense()
    norms = [float(residual.norm())]
    for _ in range(rounds):
        residual = left_over(residual, first.keys, prior)
        norms.append(float(residual.norm()))
    return norms


def _of_methods(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["method"] in METHODS]


def _beside(rows: Sequence[Row]) -> list[Row]:
    """The rows of one layer, as measured and as eq. 6 says."""
    alone = [row for row in rows if row["method"] == ALONE]
    said = [{**row, "method": "eq. 6", "residual": row["said"]} for row in alone]
    return [*({**row, "method": "measured"} for row in alone), *said]


FIGURE3: Final = Figure3()
