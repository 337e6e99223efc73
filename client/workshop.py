"""The heavy steps of a client in a round: the search for z, and its contributions as files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import torch

from collabedit.client.answers import TOKENS
from collabedit.client.keys import measure
from collabedit.client.loading import LoadedModel
from collabedit.client.lookup import rewriting_rows
from collabedit.client.memit import edit_alone, edit_layer
from collabedit.client.model_version import Priors, VersionedModel
from collabedit.client.target_store import TargetStore
from collabedit.client.targets import Targets, find_targets
from collabedit.common.contribution import Factored, LayerUpdate, Metadata
from collabedit.common.contribution_file import write_contribution
from collabedit.common.editors import editor_of
from collabedit.common.edits import Edit
from collabedit.common.encoding import encoded
from collabedit.common.errors import ContributionError, UsageError
from collabedit.common.files import publish_file
from collabedit.common.fingerprint import file_digest
from collabedit.common.pairs import ALGORITHMS, check_extent, constants_of
from collabedit.common.settings import FederationSettings
from collabedit.common.validation import Rules, check_layer

PROBES: Final = "probes"  # the folder of z that no contribution is made of
DTYPES: Final = {"float32": torch.float32, "float64": torch.float64}
Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class Slot:
    """What a contribution is for: a layer (0 in one-shot) of an attempt of a round."""

    round: int
    attempt: int
    layer: int


class Workshop:
    """Makes this client's contributions. priors: C by weight; None where C0 is not at hand and not needed."""

    def __init__(
        self,
        model: VersionedModel,
        settings: FederationSettings,
        priors: Priors | None,
        *,
        targets: Path,
        outbox: Path,
        batch_tokens: int | None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._model = model
        self._settings = settings
        self._priors = priors
        self._editor = editor_of(settings.editor, settings.hparams)
        self._store = TargetStore(targets)
        self._probes = TargetStore(targets / PROBES)
        self._outbox = outbox
        self._batch_tokens = batch_tokens
        self._say = say

    @property
    def _loaded(self) -> LoadedModel:
        return self._model.loaded

    def check(self, edit: Edit) -> None:
        """Raises BadEditsError for an edit that the model cannot take."""
        rewriting_rows(self._loaded, edit, self._settings.context_templates)

    def find_targets(self, edits: Sequence[Edit], tick: Tick) -> Targets:
        """z of each edit on the model's present weights, the base version's; each is kept as soon as it is found."""
        return self._found(edits, self._store, tick)

    def _found(self, edits: Sequence[Edit], store: TargetStore, tick: Tick | None) -> Targets:
        settings = self._settings
        return find_targets(
            self._loaded,
            edits,
            settings.hparams,
            settings.context_templates,
            on_progress=tick,
            say=self._say,
            store=store,
            batch=self._batch_tokens,
        )

    def probe(self, edits: Sequence[Edit], tick: Tick | None = None) -> list[float]:
        """‖z − h‖ of edits that are not of a batch, on the model's present weights.

        Their z are kept apart: beside a batch's others they would be rounded otherwise, and a batch's z must be the
        same after a kill.
        """
        return self.residuals(edits, self._found(edits, self._probes, tick))

    def residuals(self, edits: Sequence[Edit], targets: Targets) -> list[float]:
        """‖z − h‖ of each edit on the model's present weights; 0 where the search for z stopped at once."""
        if not edits:
            return []
        hparams, prompt = self._settings.hparams, (self._settings.context_templates[0][:1],)
        tokens = self._batch_tokens or TOKENS
        measured = measure(self._loaded, edits, hparams, prompt, hparams.layers[-1], batch=tokens)
        norms = (targets.z.to(torch.float64) - measured.states).norm(dim=0).tolist()
        return [norm if steps else 0.0 for norm, steps in zip(norms, targets.steps, strict=True)]

    def contribute(self, slot: Slot, edits: Sequence[Edit], targets: Targets) -> str:
        """Writes the contribution of one slot to the outbox and returns its content address.

        Raises ContributionError where it would break a rule of the federation: facts that are too alike make KKᵀ's rank
        smaller than their number.
        """
        updates = self._updates(slot, edits, targets)
        for name, update in updates.items():
            rules = Rules(shapes={name: update.shape}, min_rank=self._settings.min_edits)
            check_layer(name, update, rules)
        written = self._outbox / f"{slot.round}-{slot.attempt}-{slot.layer}.part"
        write_contribution(written, updates, self._metadata(slot, len(edits)))
        digest = file_digest(written)
        publish_file(written, self._outbox / digest)
        return digest

    def _updates(self, slot: Slot, edits: Sequence[Edit], targets: Targets) -> dict[str, LayerUpdate]:
        settings = self._settings
        _check_extent(settings, len(edits))
        common = (self._loaded, edits, targets, settings.hparams, settings.context_templates)
        factors: Mapping[str, Factored]
        if settings.schedule == "layer-sync":
            name = settings.edited_weights[slot.layer]
            factors = {name: edit_layer(*common, slot.layer, shares=settings.residual_shares)}
        else:
            priors = self._priors if self._priors is not None else {}
            factors = edit_alone(
                *common, priors, spread=settings.spread, shares=settings.residual_shares, editor=self._editor
            )
        return {name: self._encoded(name, each) for name, each in factors.items()}

    def _encoded(self, name: str, update: Factored) -> LayerUpdate:
        settings = self._settings
        known = self._priors is not None and self._priors.known(name)
        prior = partial(self._priors.__getitem__, name) if self._priors is not None and known else None
        return encoded(update, settings.encoding, self._editor, prior, what=name).to(DTYPES[settings.dtype])

    def _metadata(self, slot: Slot, edits: int) -> Metadata:
        settings = self._settings
        return Metadata(
            model_fingerprint=settings.model_fingerprint,
            covariance_fingerprint=settings.covariance_fingerprint,
            algorithm=ALGORITHMS[settings.editor],
            schedule=settings.schedule,
            spread=settings.spread,
            residual_shares=settings.residual_shares,
            constants=constants_of(settings.editor, settings.hparams),
            edits=edits,
            round=slot.round,
            base_version=self._model.base.version,
        )


def _check_extent(settings: FederationSettings, edits: int) -> None:
    """Raises ContributionError for more edits than the federation's editor takes at once."""
    try:
        check_extent(settings.editor, edits=edits, layers=len(settings.edited_weights))
    except UsageError as error:
        raise ContributionError(
            error.what, mend="the federation's editor takes no more; keep one edit in the file"
        ) from error
