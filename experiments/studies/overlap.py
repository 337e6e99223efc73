"""Overlap: edits that several parties hold and that come again in later rounds, left alone and handled."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

from collabedit.client.damage import perplexity
from collabedit.client.keys import measure
from collabedit.client.metrics import Scores, score
from collabedit.client.screening import SAMPLE, calibrate, known
from collabedit.client.targets import Targets
from collabedit.client.weights import restored
from collabedit.common.edits import Edit
from collabedit.experiments.intervals import differences
from collabedit.experiments.many_rounds import ManyRounds
from collabedit.experiments.studies import records
from collabedit.experiments.studies.continual import Continual, Rounds, flat, packed, pooled
from collabedit.experiments.studies.field import parties_of
from collabedit.experiments.studies.measured import figures
from collabedit.experiments.studies.plots import legend, lines
from collabedit.experiments.studies.settings import OverlapSettings
from collabedit.experiments.studies.study import Cell, Place, Study, Work
from collabedit.experiments.studies.tables import INTERVALS, Row, Table, shown, table_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARES: Final = (0.0, 0.1, 0.2, 0.4)
NONE: Final = "0.00"
HANDLED, SKIPPED, PERPLEXITY = "handled", "skipped", "perplexity"
LOST: Final = {"Score lost": "Score", "NS lost": "NS", "NA lost": "NA"}


class Overlap(Study[OverlapSettings]):
    """A cell is a share and a way; without overlap both ways are one."""

    name: ClassVar[str] = "overlap"
    title: ClassVar[str] = "Overlap: the same edits, from several parties and again"
    text: ClassVar[str] = """\
Every round brings fresh edits. A share of them is held by several parties, and comes again, from another party, in
every later round. `left alone`, all of that is merged as often as it comes. `handled`, an edit that several parties
bring to one round is merged once, as their equal blinded names say, and one that comes again is screened as the client
does it: it is skipped where the model answers with it and the residual of a new search for z is below the threshold
that fresh and merged edits have shown (all parties' here). Figures are of all edits after the last round, each counted
once; the perplexity is of text about nobody who was edited. "Lost" is what edits left alone lack to the handled ones,
paired. Of the edits that the last screening skipped, the last table has their figures less those of the same edits
where they were made again and again."""

    def keys(self, settings: OverlapSettings) -> Sequence[str]:
        """`0.00`, `0.10/handled`, `0.10/left alone, 2 parties`, …"""
        return [NONE, *(f"{share:.2f}/{way}" for share in SHARES[1:] for way in (HANDLED, *alone(settings)))]

    def begin(self, settings: OverlapSettings, place: Place) -> Work:
        """Each cell starts from the unedited model."""
        federation = Continual.of(settings, place)
        deal = federation.dealt(settings.seed)
        text = records.other_text(settings, flat(deal))

        def work(key: str) -> Cell:
            share, _, way = key.partition("/")
            copies = alone(settings).get(way, 1)
            run = Run(federation, Chosen.of(deal, float(share), copies, settings), handled=copies == 1)
            with restored(federation.bench.loaded, federation.bench.weights):
                for number in range(len(deal)):
                    place.listener.say(f"{key}: round {number + 1} of {len(deal)}")
                    run.step(number)
                loaded = federation.bench.loaded
                return {
                    "scores": packed(score(loaded, flat(deal))),
                    PERPLEXITY: perplexity(loaded, text).value,
                    "merged": run.merged,
                    "skipped": run.skipped,
                    "screened": run.screened,
                }

        return work

    def rows(self, settings: OverlapSettings, cells: Mapping[str, Cell]) -> list[Row]:
        """One for each share and way, and one for the skipped edits of each share."""
        rows: list[Row] = []
        for share in SHARES:
            for way in (HANDLED, *alone(settings)):
                handled, cell = (cells.get(f"{share:.2f}/{each}", cells[NONE]) for each in (HANDLED, way))
                scores = pooled([cell["scores"]])
                row = {"method": way, "overlap": share, "merged": cell["merged"], **figures(scores, settings.seed)}
                row[PERPLEXITY] = cell[PERPLEXITY]
                if way == HANDLED:
                    row |= {"skipped": len(cell["skipped"]), "screened": cell["screened"]}
                else:
                    apart = differences(pooled([handled["scores"]]), scores, seed=settings.seed)
                    lost = {name: apart[of] for name, of in LOST.items() if of in row}
                    row |= {name: each.value for name, each in lost.items()}
                    row[INTERVALS] |= {name: [each.low, each.high] for name, each in lost.items()}
                rows.append(row)
        return [*rows, *(each for share in SHARES[1:] for each in _skipped(share, settings, cells))]

    def tables(self, settings: OverlapSettings, rows: Sequence[Row]) -> list[Table]:
        """All ways; and what skipping costs."""
        skipped = [row for row in rows if "less" in row]
        tables = [table_of([row for row in rows if "less" not in row])]
        return [*tables, table_of(skipped, title="Skipped, less re-edited")] if skipped else tables

    def notes(self, settings: OverlapSettings, rows: Sequence[Row]) -> Sequence[str]:
        """What the greatest overlap costs."""
        handled, *_, worst = (row for row in rows if row["overlap"] == SHARES[-1] and "less" not in row)
        lost = " and ".join(
            f"{worst[name]:.3f} [{', '.join(shown(each) for each in worst[INTERVALS][name])}] of {of}"
            for name, of in LOST.items()
            if name in worst
        )
        edits = settings.rounds * settings.parties * settings.edits_per_party
        return (
            f"{edits:,} edits in {settings.rounds} rounds of {settings.parties} parties. At an overlap of"
            f" {SHARES[-1]:.0%}, {handled['merged']:,} edits are merged where they are handled, and {worst['merged']:,}"
            f" where what {settings.copies} parties hold is left alone; that costs {lost}, and the perplexity is"
            f" {shown(worst[PERPLEXITY])} against {shown(handled[PERPLEXITY])}.",
        )

    def draw(self, settings: OverlapSettings, rows: Sequence[Row], figure: Figure) -> None:
        """What is lost of Score and of neighbours, perplexity, and what skipping changes."""
        figure.set_size_inches(14.0, 4.1)
        panels = figure.subplots(1, 4)
        ways = [row for row in rows if "less" not in row]
        kinds = [kind for kind in LOST if any(kind in row for row in ways)]
        for axes, kind in zip(panels, (*kinds, PERPLEXITY), strict=False):
            lines(axes, ways, "overlap", kind)
            axes.set_title(kind if kind == PERPLEXITY else f"{kind}, beside handled", fontsize=11)
        skipped = [{**row, "method": row["less"]} for row in rows if "less" in row]
        lines(panels[3], [{"method": HANDLED, "overlap": 0.0}, *skipped], "overlap", "Score")  # so colours agree
        panels[3].set_title("Score of skipped edits, less re-edited", fontsize=11)
        for axes in panels:
            axes.set_xticks(SHARES, [f"{share:.0%}" for share in SHARES])
            axes.set_xlabel("overlap")
            axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        for axes in (*panels[:-2], panels[-1]):
            axes.axhline(0, color="#999999", linewidth=0.8)
        legend(figure, panels[len(kinds)])


def alone(settings: OverlapSettings) -> dict[str, int]:
    """The ways that leave overlap alone, and how many parties hold what overlaps: two, and as many as are asked for."""
    return {f"left alone, {copies} parties": copies for copies in sorted({2, settings.copies})}


@dataclass(frozen=True)
class Chosen:
    """Who holds which edits: fresh, further copies of them in the round, and those that come again, by round, party."""

    fresh: Rounds
    copies: Rounds
    again: Rounds

    @classmethod
    def of(cls, deal: Rounds, share: float, copies: int, settings: OverlapSettings) -> Chosen:
        """By the seed; a smaller share's edits are among a greater one's."""
        rng = random.Random(settings.seed)  # noqa: S311 - no secret
        others, again, earlier = [], [], list[tuple[int, Edit]]()
        for own in deal:
            drawn = [(party, edit) for party, edits in enumerate(own) for edit in edits]
            rng.shuffle(drawn)
            drawn = drawn[: round(share * len(drawn))]
            further = [(party + step, edit) for step in range(1, copies) for party, edit in drawn]
            others.append(_by_party(further, settings.parties))
            again.append(_by_party([(party + 1, edit) for party, edit in earlier], settings.parties))
            earlier += drawn
        return cls(deal, tuple(others), tuple(again))


@dataclass
class Run:
    """The rounds of one way. merged, screened: edits, each time they are; skipped: numbers of those that the last round
    left out, among all edits.
    """

    federation: Continual
    chosen: Chosen
    handled: bool
    merged: int = 0
    screened: int = 0
    skipped: list[int] = field(default_factory=list)
    rounds: ManyRounds = field(init=False)
    fresh: list[float] = field(default_factory=list)
    held: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """A federation that has no round behind it."""
        self.rounds = ManyRounds(self.federation.bench)

    def step(self, number: int) -> None:
        """One round."""
        fresh, again = self.chosen.fresh[number], self.chosen.again[number]
        dealt = _joined(fresh, self._unknown(again) if self.handled else again, self.chosen.copies[number])
        edits = flat([dealt])
        distinct = tuple(dict.fromkeys(edits))
        places = {edit: at for at, edit in enumerate(distinct)}
        found = self.rounds.targets(distinct)
        if self.handled:
            every = self._residuals(distinct, found)
            self.fresh += [every[places[edit]] for edit in flat([fresh])]
        self.rounds.run(parties_of(dealt, found.only([places[edit] for edit in edits])))
        self.merged += len(edits)
        if self.handled:
            sample = flat([fresh])[:SAMPLE]
            self.held += self._residuals(sample, self.rounds.targets(sample))

    def _unknown(self, again: records.Dealt) -> records.Dealt:
        """Those that the client would not skip."""
        edits = flat([again])
        if not edits:
            return again
        threshold = calibrate(self.fresh, self.held)
        left = self._residuals(edits, self.rounds.targets(edits))
        scores = score(self.federation.bench.loaded, edits).edits
        skip = {
            edit for edit, found, residual in zip(edits, scores, left, strict=True) if known(found, residual, threshold)
        }
        self.screened += len(edits)
        self.skipped = [at for at, edit in enumerate(flat(self.chosen.fresh)) if edit in skip]
        return tuple(tuple(edit for edit in own if edit not in skip) for own in again)

    def _residuals(self, edits: Sequence[Edit], targets: Targets) -> list[float]:
        """‖z − h‖ of each edit, at the last edited layer, on the present weights."""
        bench = self.federation.bench
        measured = measure(bench.loaded, edits, bench.hparams, bench.templates, bench.hparams.layers[-1])
        return [float(each) for each in (targets.z.double() - measured.states).norm(dim=0)]


def _by_party(edits: Sequence[tuple[int, Edit]], parties: int) -> records.Dealt:
    return tuple(tuple(edit for holder, edit in edits if holder % parties == party) for party in range(parties))


def _joined(*dealt: records.Dealt) -> records.Dealt:
    """Each party's edits of several deals; an edit that a party has twice, once."""
    return tuple(tuple(dict.fromkeys(edit for own in parts for edit in own)) for parts in zip(*dealt, strict=True))


def _skipped(share: float, settings: OverlapSettings, cells: Mapping[str, Cell]) -> list[Row]:
    """The figures of edits that the last round skipped, less those of the same ones made again; none if none was."""
    handled = cells[f"{share:.2f}/{HANDLED}"]
    rows: list[Row] = []
    for way in alone(settings) if handled["skipped"] else ():
        of_them, again = (_some(cell["scores"], handled["skipped"]) for cell in (handled, cells[f"{share:.2f}/{way}"]))
        found = differences(of_them, again, seed=settings.seed)
        names = [name for name in of_them.row() if name in found]
        row: dict[str, Any] = {"method": SKIPPED, "less": way, "overlap": share, "edits": len(handled["skipped"])}
        row |= {name: found[name].value for name in names}
        rows.append({**row, INTERVALS: {name: [found[name].low, found[name].high] for name in names}})
    return rows


def _some(cell: Mapping[str, Any], numbers: Sequence[int]) -> Scores:
    return pooled([{"family": cell["family"], "edits": [cell["edits"][at] for at in numbers]}])


OVERLAP: Final = Overlap()
