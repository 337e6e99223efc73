"""What the methods of a study share: the model, the parties' edits, and z vectors, found once and kept on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch

from collabedit.client.loading import load_model
from collabedit.client.search import Found
from collabedit.client.target_store import TargetStore
from collabedit.client.targets import Targets, find_targets
from collabedit.common.covariance_file import CovarianceFile
from collabedit.common.editors import editor_of
from collabedit.common.edits import Edit
from collabedit.common.errors import UsageError
from collabedit.common.hparams_file import read_hparams_file
from collabedit.common.model_folder import find_model
from collabedit.common.pairs import check_extent
from collabedit.common.presets import choose_hparams
from collabedit.common.prior import Prior
from collabedit.experiments.baselines import Bench, Party
from collabedit.experiments.progress import ticking
from collabedit.experiments.studies.settings import StudySettings
from collabedit.experiments.studies.study import Place

DTYPES: Final = {"float64": torch.float64, "float32": torch.float32}


@dataclass(frozen=True)
class FirstFound(TargetStore):
    """A folder of z vectors in which none is ever replaced: studies that share it may search for an edit again, beside
    others and so with another rounding, and a study that goes on later must find what it began with.
    """

    def __setitem__(self, key: str, found: Found, /) -> None:
        """Keeps one result, unless there is one."""
        if self.get(key) is None:
            super().__setitem__(key, found)


@dataclass(frozen=True)
class Field:
    """The model in the precision that keys are measured in, and the parties with their targets."""

    bench: Bench
    parties: tuple[Party, ...]

    @property
    def edits(self) -> tuple[Edit, ...]:
        """Everybody's, in the parties' order."""
        return tuple(edit for party in self.parties for edit in party.edits)

    def only(self, parties: int, most: int) -> Field:
        """The first so many edits of each of the first so many parties."""
        return self.resplit([range(most)] * parties, self.parties[:parties])

    def resplit(self, kept: Sequence[Sequence[int]], parties: Sequence[Party]) -> Field:
        """The same parties with some of their edits, by number."""
        chosen = [
            Party(party.name, tuple(party.edits[i] for i in own), party.targets.only(own))
            for own, party in zip(kept, parties, strict=True)
        ]
        return Field(self.bench, tuple(chosen))

    def dealt_anew(self, parties: int, per_party: int) -> Field:
        """The first edits of all, dealt to so many parties in their order."""
        targets, edits = Targets.joined([party.targets for party in self.parties]), self.edits
        if parties * per_party > len(edits):
            raise UsageError(f"{len(edits)} edits are not enough for {parties} parties with {per_party} each")
        shares = [range(start, start + per_party) for start in range(0, parties * per_party, per_party)]
        return Field(self.bench, tuple(_party(number, edits, targets, own) for number, own in enumerate(shares)))


def _party(number: int, edits: Sequence[Edit], targets: Targets, own: Sequence[int]) -> Party:
    return Party(f"party-{number + 1}", tuple(edits[index] for index in own), targets.only(own))


def bench_of(settings: StudySettings, dtype: torch.dtype | None = None) -> Bench:
    """The model with what an edit needs, from the settings' files or its folder. dtype: [the settings' precision].

    Raises UsageError where the covariance or the context templates are missing.
    """
    folder = find_model(settings.model)
    hparams = read_hparams_file(settings.hparams) if settings.hparams else choose_hparams(folder).hparams
    covariance = settings.covariance or folder.covariance
    if covariance is None:
        raise UsageError(f"{folder.name}: no covariance in its folder", mend="give --covariance: `collab covariance`")
    templates = folder.context_templates
    if settings.context_templates:
        templates = tuple(tuple(each) for each in json.loads(settings.context_templates.read_text(encoding="utf-8")))
    if templates is None:
        raise UsageError(f"{folder.name}: no context templates in its folder", mend="give --context-templates")
    opened = CovarianceFile.open(covariance)
    weight = hparams.mom2_update_weight
    priors = {name: Prior(opened.mean(name), weight) for name in folder.edited_weights(hparams)}
    loaded = load_model(folder, dtype=dtype or DTYPES[settings.precision], device=settings.device)
    return Bench(loaded, hparams, templates, priors, editor=editor_of(settings.editor, hparams))


def targets_of(settings: StudySettings, edits: Sequence[Edit], place: Place) -> Targets:
    """z of the edits on the model as it is, in float32; from the folder of targets where they are known."""
    bench = bench_of(settings, torch.float32)
    place.listener.say(f"finding z of {len(edits)} edits, once for all methods")
    tick = ticking(place.listener, "finding z")
    store = FirstFound(place.targets)
    find_targets(bench.loaded, edits, bench.hparams, bench.templates, store=store, on_progress=tick)
    return find_targets(bench.loaded, edits, bench.hparams, bench.templates, store=store)  # what is kept, none other


def lay_out(settings: StudySettings, dealt: Sequence[Sequence[Edit]], place: Place) -> Field:
    """The parties with their targets, found once for all methods; and the model, as it is before any edit."""
    everybody = tuple(edit for own in dealt for edit in own)
    targets = targets_of(settings, everybody, place)
    bench = bench_of(settings)
    check_extent(settings.editor, edits=len(everybody), layers=len(bench.weights))
    return Field(bench, parties_of(dealt, targets))


def parties_of(dealt: Sequence[Sequence[Edit]], targets: Targets) -> tuple[Party, ...]:
    """The parties with their edits. targets: of everybody's, in the parties' order."""
    everybody, members, start = tuple(edit for own in dealt for edit in own), [], 0
    for number, own in enumerate(dealt):
        members.append(_party(number, everybody, targets, range(start, start + len(own))))
        start += len(own)
    return tuple(members)
