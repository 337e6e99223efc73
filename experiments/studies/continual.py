"""What studies of many rounds share: a deal of fresh edits to each round, the rounds, and scores pooled over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from collabedit.client.metrics import EditScore, Kinds, Scores, score
from collabedit.client.weights import restored
from collabedit.common.edits import Edit
from collabedit.experiments.baselines import Bench
from collabedit.experiments.many_rounds import Dynamics, ManyRounds
from collabedit.experiments.studies import records
from collabedit.experiments.studies.field import bench_of, parties_of, targets_of
from collabedit.experiments.studies.settings import ManyRoundsSettings
from collabedit.experiments.studies.study import Cell, Place

Rounds = tuple[records.Dealt, ...]  # edits by round and party


@dataclass(frozen=True)
class Continual:
    """A federation that starts from the unedited model each time it is run."""

    settings: ManyRoundsSettings
    place: Place
    bench: Bench

    @classmethod
    def of(cls, settings: ManyRoundsSettings, place: Place) -> Continual:
        """With the model of the settings."""
        return cls(settings, place, bench_of(settings))

    def dealt(self, seed: int) -> Rounds:
        """Each round's edits, by party; no two are of the same subject and relation."""
        each = self.settings.parties * self.settings.edits_per_party
        pool = records.further(self.settings, each * self.settings.rounds, seed)
        own = (pool[start : start + each] for start in range(0, len(pool), each))
        return tuple(records.split(edits, self.settings.parties, self.settings.edits_per_party) for edits in own)

    @contextmanager
    def rounds(self, deal: Rounds, method: str, dynamics: Dynamics, what: str) -> Iterator[Iterator[int]]:
        """Inside, each step runs one round and gives its number, from 1; the model is left as it was."""
        with restored(self.bench.loaded, self.bench.weights):
            yield self._run(deal, ManyRounds(self.bench, method, dynamics), what)

    def _run(self, deal: Rounds, federation: ManyRounds, what: str) -> Iterator[int]:
        once = targets_of(self.settings, flat(deal), self.place) if self.settings.z == "once" else None
        done = 0
        for number, own in enumerate(deal, start=1):
            self.place.listener.say(f"{what}: round {number} of {len(deal)}")
            edits = flat([own])
            targets = once.only(range(done, done + len(edits))) if once else federation.targets(edits)
            federation.run(parties_of(own, targets))
            done += len(edits)
            yield number

    def score(self, deal: Rounds) -> dict[str, Any]:
        """Packed scores of some rounds' edits on the model as it is now."""
        return packed(score(self.bench.loaded, flat(deal)))


def flat(deal: Sequence[records.Dealt]) -> tuple[Edit, ...]:
    """Everybody's edits of all rounds, in order."""
    return tuple(edit for own in deal for edits in own for edit in edits)


def packed(scores: Scores) -> dict[str, Any]:
    """What the family's figures are of, edit by edit, as a cell can hold it."""
    judged = [each.accuracy if scores.family == "zsre" else each.success for each in scores.edits]
    return {
        "family": scores.family,
        "edits": [
            [each.id, kinds.efficacy, kinds.paraphrase, kinds.neighborhood]
            for each, kinds in zip(scores.edits, judged, strict=True)
        ],
    }


def pooled(cells: Sequence[Cell]) -> Scores:
    """Scores of all the edits of some packed ones; only the family's own figures count."""
    found = []
    for seed, cell in enumerate(cells):
        for name, *values in cell["edits"]:
            kinds = Kinds(*values)
            found.append(EditScore(f"{seed}/{name}", kinds, kinds, kinds, 0.0))
    mean = Kinds.mean([each.success for each in found])
    return Scores(cells[0]["family"], mean, mean, mean, tuple(found))


def part(cell: Mapping[str, Any], edits: slice) -> Cell:
    """Some of the edits of packed scores."""
    return {"family": cell["family"], "edits": cell["edits"][edits]}
