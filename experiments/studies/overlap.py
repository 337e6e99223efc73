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
from collabedit.experiments.studies.plots import fractions, legend, lines
from collabedit.experiments.studies.settings import OverlapSettings
from collabedit.experiments.studies.study import Cell, Place, Study, Work
from collabedit.experiments.studies.tables import INTERVALS, Row, Table, shown, table_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARES: Final = (0.0, 0.1, 0.2, 0.4)
ALONE, HANDLED, SKIPPED = "left alone", "handled", "skipped, against re-edited"
SPARED, PERPLEXITY = "Score spared", "perplexity"


class Overlap(Study[OverlapSettings]):
    """A cell is a share and a way; without overlap both ways are one."""

    name: ClassVar[str] = "overlap"
    title: ClassVar[str] = "Overlap: the same edits, from several parties and again"
    text: ClassVar[str] = """\
Every round brings fresh edits. A share of them is held by further parties too, and comes again, from another party, in
every later round. `left alone`, all of that is merged as often as it comes. `handled`, an edit that several parties
bring to one round is merged once, as their equal blinded names say, and one that comes again is screened as the client
does it: it is skipped where the model answers with it and the residual of a new search for z is below the threshold
that fresh and merged edits have shown (all parties' here). Figures are of all edits after the last round, each counted
once; the perplexity is of text about nobody who was edited. "Score spared" is what the handled edits have more than
those left alone, paired. Of the edits that the last screening skipped, the last table has what they lack to the same
edits where they were made again and again."""

    def keys(self, settings: OverlapSettings) -> Sequence[str]:
        """`0.00`, `0.10/left alone`, `0.10/handled`, …"""
        return ["0.00", *(f"{share:.2f}/{way}" for share in SHARES[1:] for way in (ALONE, HANDLED))]

    def begin(self, settings: OverlapSettings, place: Place) -> Work:
        """Each cell starts from the unedited model."""
        federation = Continual.of(settings, place)
        deal = federation.dealt(settings.seed)
        text = records.other_text(settings, flat(deal))

        def work(key: str) -> Cell:
            share, _, way = key.partition("/")
            run = Run(federation, deal, Chosen.of(deal, float(share), settings), way or HANDLED)
            with restored(federation.bench.loaded, federation.bench.weights):
                for number in range(len(deal)):
                    place.listener.say(f"{key}: round {number + 1} of {len(deal)}")
                    run.step(number)
                loaded = federation.bench.loaded
                return {
                    "scores": packed(score(loaded, flat(deal))),
                    PERPLEXITY: perplexity(loaded, text).value,
                    "merged": run.merged,
                    "skipped": sorted(run.skipped),
                    "screened": run.screened,
                }

        return work

    def rows(self, settings: OverlapSettings, cells: Mapping[str, Cell]) -> list[Row]:
        """One for each share and way, and one for the skipped edits of each share."""
        rows: list[Row] = []
        for share in SHARES:
            alone, handled = (cells.get(f"{share:.2f}/{way}", cells["0.00"]) for way in (ALONE, HANDLED))
            spared = differences(pooled([handled["scores"]]), pooled([alone["scores"]]), seed=settings.seed)["Score"]
            for way, cell in ((ALONE, alone), (HANDLED, handled)):
                own = figures(pooled([cell["scores"]]), settings.seed)
                row = {"method": way, "overlap": share, "merged": cell["merged"], **own, PERPLEXITY: cell[PERPLEXITY]}
                if way == HANDLED:
                    row |= {SPARED: spared.value, "skipped": len(cell["skipped"]), "screened": cell["screened"]}
                    row[INTERVALS] = {**own[INTERVALS], SPARED: [spared.low, spared.high]}
                rows.append(row)
        return [*rows, *(each for share in SHARES[1:] for each in _skipped(share, settings, cells))]

    def tables(self, settings: OverlapSettings, rows: Sequence[Row]) -> list[Table]:
        """Both ways; and what skipping costs."""
        skipped = [row for row in rows if row["method"] == SKIPPED]
        tables = [table_of([row for row in rows if row["method"] != SKIPPED])]
        return [*tables, table_of(skipped, title="Skipped, less re-edited")] if skipped else tables

    def notes(self, settings: OverlapSettings, rows: Sequence[Row]) -> Sequence[str]:
        """What the greatest overlap costs, and what skipping does."""
        last = next(row for row in rows if row["method"] == HANDLED and row["overlap"] == SHARES[-1])
        alone = next(row for row in rows if row["method"] == ALONE and row["overlap"] == SHARES[-1])
        low, high = last[INTERVALS][SPARED]
        edits = settings.rounds * settings.parties * settings.edits_per_party
        return (
            f"{edits:,} edits in {settings.rounds} rounds of {settings.parties} parties. At an overlap of"
            f" {SHARES[-1]:.0%}, held by {settings.copies} parties, {alone['merged']:,} edits are merged where they"
            f" are left alone and {last['merged']:,} where they are handled: Score spared {shown(last[SPARED])}"
            f" [{shown(low)}, {shown(high)}], perplexity {shown(last[PERPLEXITY])} against"
            f" {shown(alone[PERPLEXITY])}.",
        )

    def draw(self, settings: OverlapSettings, rows: Sequence[Row], figure: Figure) -> None:
        """Score, NS, perplexity; and what the skipped edits lack."""
        figure.set_size_inches(14.0, 4.1)
        panels = figure.subplots(1, 4)
        ways = [row for row in rows if row["method"] != SKIPPED]
        guarded = "NS" if "NS" in ways[0] else "NA"
        for axes, kind in zip(panels, ("Score", guarded, PERPLEXITY), strict=False):
            lines(axes, ways, "overlap", kind)
            if kind != PERPLEXITY:
                fractions(axes)
            axes.set_title(kind, fontsize=11)
        lines(panels[3], [row for row in rows if row["method"] == SKIPPED], "overlap", "Score")
        panels[3].axhline(0, color="#999999", linewidth=0.8)
        panels[3].set_title("Score of skipped edits, less re-edited", fontsize=11)
        for axes in panels:
            axes.set_xticks(SHARES, [f"{share:.0%}" for share in SHARES])
            axes.set_xlabel("overlap")
            axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        legend(figure, panels[0])


@dataclass(frozen=True)
class Chosen:
    """Who holds which edits: fresh, further copies of them in the round, and those that come again, by round, party."""

    fresh: Rounds
    copies: Rounds
    again: Rounds

    @classmethod
    def of(cls, deal: Rounds, share: float, settings: OverlapSettings) -> Chosen:
        """By the seed; a smaller share's edits are among a greater one's."""
        rng = random.Random(settings.seed)  # noqa: S311 - no secret
        copies, again, earlier = [], [], list[tuple[int, Edit]]()
        for own in deal:
            drawn = [(party, edit) for party, edits in enumerate(own) for edit in edits]
            rng.shuffle(drawn)
            drawn = drawn[: round(share * len(drawn))]
            further = [(party + step, edit) for step in range(1, settings.copies) for party, edit in drawn]
            copies.append(_by_party(further, settings.parties))
            again.append(_by_party([(party + 1, edit) for party, edit in earlier], settings.parties))
            earlier += drawn
        return cls(deal, tuple(copies), tuple(again))


@dataclass
class Run:
    """The rounds of one way. merged, screened: edits, each time they are; skipped: numbers of those that the last round
    left out, among all edits.
    """

    federation: Continual
    deal: Rounds
    chosen: Chosen
    way: str
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
        if self.way == ALONE:
            dealt = _joined(fresh, self.chosen.copies[number], again)
        else:
            dealt = _joined(fresh, self._unknown(again))
        edits = flat([dealt])
        distinct = tuple(dict.fromkeys(edits))
        places = {edit: at for at, edit in enumerate(distinct)}
        found = self.rounds.targets(distinct)
        if self.way == HANDLED:
            every = self._residuals(distinct, found)
            self.fresh += [every[places[edit]] for edit in flat([fresh])]
        self.rounds.run(parties_of(dealt, found.only([places[edit] for edit in edits])))
        self.merged += len(edits)
        if self.way == HANDLED:
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
        self.skipped = [at for at, edit in enumerate(flat(self.deal)) if edit in skip]
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
    """What the edits that were skipped in the last round lack to the same ones made again; none where none was."""
    handled, alone = (cells[f"{share:.2f}/{way}"] for way in (HANDLED, ALONE))
    if not handled["skipped"]:
        return []
    of_them, again = (_some(cell["scores"], handled["skipped"]) for cell in (handled, alone))
    found = differences(of_them, again, seed=settings.seed)
    names = [name for name in of_them.row() if name in found]
    row: dict[str, Any] = {"method": SKIPPED, "overlap": share, "edits": len(handled["skipped"])}
    row |= {name: found[name].value for name in names}
    return [{**row, INTERVALS: {name: [found[name].low, found[name].high] for name in names}}]


def _some(cell: Mapping[str, Any], numbers: Sequence[int]) -> Scores:
    return pooled([{"family": cell["family"], "edits": [cell["edits"][at] for at in numbers]}])


OVERLAP: Final = Overlap()
