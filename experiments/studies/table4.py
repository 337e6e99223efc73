"""Table 4 and Figure 4: conflicts of one round, and what the winners' re-submissions make of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from textwrap import fill
from typing import TYPE_CHECKING, Any, ClassVar, Final, get_args

from collabedit.client.answers import answer
from collabedit.client.augment import Form, augmented
from collabedit.client.metrics import score
from collabedit.client.targets import find_targets
from collabedit.client.weights import add_update, restored
from collabedit.common.edits import Edit
from collabedit.experiments.intervals import mean_interval
from collabedit.experiments.many_rounds import ManyRounds
from collabedit.experiments.progress import ticking
from collabedit.experiments.studies.duels import Duel, contested, settled
from collabedit.experiments.studies.field import Field, FirstFound, lay_out, parties_of
from collabedit.experiments.studies.plots import bars, fractions, legend
from collabedit.experiments.studies.settings import Table4Settings
from collabedit.experiments.studies.study import Cell, Place, Study, Work
from collabedit.experiments.studies.tables import INTERVALS, Row, Table, shown, table_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEFORE: Final = "unsolved"
FORMS: Final[tuple[Form, ...]] = get_args(Form)
SOLVED: Final[Form] = "paraphrases"  # what a client submits
AVG, SUCC, FIRST = "AvgP", "Succ", "said first"
ELSEWHERE, NEIGHBOURS, GAIN = "Succ, other wordings", "NS", "Succ gained"
FIGURES: Final = (AVG, SUCC, FIRST, ELSEWHERE, NEIGHBOURS)
ASKED: Final = ("target", "conflict", "other")
REQUIRED: Final = 0.30
LABEL: Final = 11  # characters of a line below a bar


class Table4(Study[Table4Settings]):
    """A cell is the model after the round with both, or after a form of re-submission; it has a row for each edit."""

    name: ClassVar[str] = "table4"
    title: ClassVar[str] = "Table 4 and Figure 4: conflicts settled by the winners' re-submissions"
    text: ClassVar[str] = """\
Every edit of a set E has a rival in a set E′ at another party: the same subject and relation, another object. A round
merges both: `unsolved`. The server judges their blinded names, the party that came first keeps its edit, and that of
the other is withdrawn. In the next round the winners find z anew on those weights and submit the edit once more:
`alone`; with its own `paraphrases`, which is what the client does; or with those and a `multi-label` text, the target
and the further true objects (in the bundled world, the one that was true). AvgP is the mean of P(target) − P(conflict),
whole objects after the edit's own prompt; Succ the share of edits whose target is the likelier of the two;
`said first` the share whose target is the model's own answer. Other wordings are those that none of the forms submits.
"Succ gained" is the difference to `unsolved`, of the same edits.

To the right, one conflict, as in the paper's Figure 4: of all the one whose two objects were likeliest together before
it was settled; the third object is of the same relation, and nobody's."""

    def keys(self, settings: Table4Settings) -> Sequence[str]:
        """`unsolved`, and the forms."""
        return (BEFORE, *FORMS)

    def begin(self, settings: Table4Settings, place: Place) -> Work:
        """z of E and E′ is found once; each form begins at the weights that their round has left.

        There, z of all forms' edits are found once too, since each form has those of the one before it.
        """
        dealt = contested(settings)
        aftermath = Aftermath(lay_out(settings, dealt.parties, place), settled(dealt), place)
        return lambda key: {"edits": aftermath.after(None if key == BEFORE else key)}  # type: ignore[arg-type]

    def rows(self, settings: Table4Settings, cells: Mapping[str, Cell]) -> list[Row]:
        """One for each cell; and the example's probabilities, before and after."""
        before = cells[BEFORE]["edits"]
        rows = [_row(key, cell["edits"], before, settings.seed) for key, cell in cells.items()]
        example = max(range(len(before)), key=lambda at: _undecided(before[at]))
        return [*rows, *(_example(key, cells[key]["edits"][example]) for key in (BEFORE, SOLVED))]

    def tables(self, settings: Table4Settings, rows: Sequence[Row]) -> list[Table]:
        """The forms, and the example."""
        return [table_of(_forms(rows)), table_of(_examples(rows), title="One conflict")]

    def notes(self, settings: Table4Settings, rows: Sequence[Row]) -> Sequence[str]:
        """What the example is of, and whether the requirement is met."""
        solved = next(row for row in rows if row["method"] == SOLVED)
        low, high = solved[INTERVALS][GAIN]
        met = "met" if solved[GAIN] >= REQUIRED else "not met"
        return (
            f"{solved['edits']} conflicts. Succ is up by {shown(solved[GAIN])} [{shown(low)}, {shown(high)}] with"
            f" {SOLVED}; {REQUIRED:g} is required: {met}.",
        )

    def draw(self, settings: Table4Settings, rows: Sequence[Row], figure: Figure) -> None:
        """The forms side by side; the example before and after."""
        figure.set_size_inches(13.0, 4.6)
        wide, *narrow = figure.subplots(1, 3, width_ratios=(3, 1, 1))
        forms = _forms(rows)
        bars(wide, forms, [kind for kind in FIGURES if kind in forms[0]])
        wide.axhline(0, color="#999999", linewidth=0.8)
        fractions(wide)
        wide.set_ylim(min(-0.2, min(row[INTERVALS][AVG][0] for row in forms) - 0.05), 1.05)
        legend(figure, wide)
        for axes, row in zip(narrow, _examples(rows), strict=True):
            axes.bar(range(len(ASKED)), [row[each] for each in ASKED], color=("#0072B2", "#D55E00", "#999999"))
            named = [f"{each}:\n{fill(row[f'{each} object'], LABEL)}" for each in ASKED]
            axes.set_xticks(range(len(ASKED)), named, fontsize=8)
            for at, each in enumerate(ASKED):
                axes.annotate(shown(row[each]), (at, row[each]), ha="center", va="bottom", fontsize=8)
            axes.set_xlabel(fill(row["prompt"], 3 * LABEL), fontsize=9)
            fractions(axes)
            axes.set_title("conflict unsolved" if row["after"] == BEFORE else "conflict solved", fontsize=11)
        narrow[0].set_ylabel("probability")


@dataclass(frozen=True)
class Aftermath:
    """The model on which both sides of every duel are merged, and what comes next."""

    field: Field
    duels: tuple[Duel, ...]
    place: Place

    def after(self, form: Form | None) -> list[dict[str, Any]]:
        """Each duel as it is after the winners have re-submitted in a form; None: before."""
        with self._conflicted() as federation:
            if form is not None:
                dealt, store = self._submitted(form), self._sought()
                targets = federation.targets([part for own in dealt for part in own], store)
                federation.run(parties_of(dealt, targets))
            return self._judged()

    def _submitted(self, form: Form) -> list[list[Edit]]:
        """What the winners submit in a form, party by party."""
        parties = sorted({duel.party for duel in self.duels})
        return [
            [part for duel in self.duels if duel.party == party for part in augmented(duel.target, form)]
            for party in parties
        ]

    def _sought(self) -> FirstFound:
        """A store with z of every form's edits, on the weights as they are: those that the first round left."""
        bench, store = self.field.bench, FirstFound(self.place.targets)
        parts = {part.key: part for form in FORMS for own in self._submitted(form) for part in own}
        tick = ticking(self.place.listener, "finding z anew")
        find_targets(bench.loaded, list(parts.values()), bench.hparams, bench.templates, store=store, on_progress=tick)
        return store

    @contextmanager
    def _conflicted(self) -> Iterator[ManyRounds]:
        """Inside, the model is as the first round left it."""
        bench = self.field.bench
        update, pieces = self._first
        with restored(bench.loaded, bench.weights):
            for name, delta in update.items():
                add_update(bench.loaded, name, delta)
            yield ManyRounds(bench, pieces=dict(pieces))

    @cached_property
    def _first(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """What the round with both sides came to: Δ, and its part of ΣS."""
        bench = self.field.bench
        federation = ManyRounds(bench)
        with restored(bench.loaded, bench.weights):
            return federation.run(self.field.parties), federation.pieces

    def _judged(self) -> list[dict[str, Any]]:
        loaded = self.field.bench.loaded
        scores = score(loaded, [duel.target for duel in self.duels]).edits
        objects = [(duel.target.target_new, duel.conflict.target_new, duel.other) for duel in self.duels]
        asked = [(duel.target.text, each) for duel, own in zip(self.duels, objects, strict=True) for each in own]
        found = [each.probability for each in answer(loaded, asked)]
        judged = []
        for at, (duel, own, scored) in enumerate(zip(self.duels, objects, scores, strict=True)):
            ways = other_wordings(duel.target)
            answers = [each.probability for each in answer(loaded, [(way, text) for way in ways for text in own[:2]])]
            judged.append(
                {
                    "prompt": duel.target.text,
                    **dict(zip(ASKED, found[3 * at : 3 * at + 3], strict=True)),
                    **{f"{name} object": text for name, text in zip(ASKED, own, strict=True)},
                    FIRST: float(scored.correct == 1.0),
                    ELSEWHERE: fmean(float(a > b) for a, b in zip(answers[::2], answers[1::2], strict=True))
                    if ways
                    else None,
                    NEIGHBOURS: scored.neighborhood,
                }
            )
        return judged


def other_wordings(edit: Edit) -> tuple[str, ...]:
    """The paraphrases and generation prompts that name the subject and that no form submits."""
    submitted = {part.text for form in FORMS for part in augmented(edit, form)}
    ways = dict.fromkeys((*edit.paraphrase_prompts, *edit.generation_prompts))
    return tuple(way for way in ways if way not in submitted and edit.subject in way)


def _row(key: str, edits: Sequence[Cell], before: Sequence[Cell], seed: int) -> Row:
    """A cell's figures with intervals over the edits that have them, and what it gains."""
    values = {kind: _values(edits, kind) for kind in FIGURES}
    if key != BEFORE:
        pairs = zip(values[SUCC], _values(before, SUCC), strict=True)
        values[GAIN] = [now - then for now, then in pairs]
    found = {kind: mean_interval(own, seed=seed) for kind, own in values.items() if own}
    bounds = {kind: [each.low, each.high] for kind, each in found.items()}
    return {
        "method": key,
        "edits": len(edits),
        **{kind: each.value for kind, each in found.items()},
        INTERVALS: bounds,
    }


def _values(edits: Sequence[Cell], kind: str) -> list[float]:
    if kind in (AVG, SUCC):
        margins = [each["target"] - each["conflict"] for each in edits]
        return margins if kind == AVG else [float(margin > 0) for margin in margins]
    return [each[kind] for each in edits if each[kind] is not None]


def _undecided(edit: Cell) -> tuple[bool, float]:
    """How likely both objects are; those come last of which one begins with the other: whoever says it says both."""
    target, conflict = edit["target object"], edit["conflict object"]
    apart = not (target.startswith(conflict) or conflict.startswith(target))
    return apart, min(edit["target"], edit["conflict"])


def _example(key: str, edit: Cell) -> Row:
    named = {name: edit[name] for each in ASKED for name in (f"{each} object", each)}
    return {"method": "example", "after": key, "prompt": edit["prompt"], **named}


def _forms(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["method"] != "example"]


def _examples(rows: Sequence[Row]) -> list[Row]:
    return [
        {name: value for name, value in row.items() if name != "method"} for row in rows if row["method"] == "example"
    ]


TABLE4: Final = Table4()
