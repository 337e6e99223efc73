"""A layer of a round, from contribution files to a blob of new weights; and what a contribution must be to get there.

Runs in worker threads. torch is imported with the first call: a server that waits does without.
"""

from __future__ import annotations

import time
from collections.abc import Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from collabedit.common.errors import BadFileError, CollabEditError, ContributionError, MismatchError
from collabedit.common.model_folder import ModelFolder
from collabedit.common.pairs import ALGORITHMS, check_pair
from collabedit.common.settings import FederationSettings
from collabedit.server.blobs import BlobError, BlobStore
from collabedit.server.kept_roots import KeptRootFile
from collabedit.server.rounds import LayerWeights, Round

if TYPE_CHECKING:
    from torch import Tensor

    from collabedit.common.contribution_file import ContributionFile
    from collabedit.common.prior import Prior
    from collabedit.common.validation import Rules

LOG = structlog.get_logger()
KKT = "kkt_factor"
ENCODINGS = ("factored", "dense")
UNUSED_SECONDS = 3600.0  # an upload that no round counts
UNFINISHED_SECONDS = 7 * 86_400.0  # an upload that has stopped


class Merger:
    """Checks and merges contributions that lie in a blob store (`collabedit.server.coordinator.Merges`)."""

    def __init__(
        self,
        settings: FederationSettings,
        model: ModelFolder,
        covariance: Path,
        blobs: BlobStore,
        *,
        roots: Path | None = None,
    ) -> None:
        """roots: the folder in which factors of C0 are kept from round to round; None: nowhere."""
        self._settings = settings
        self._roots = roots
        self._model = model
        self._covariance = covariance
        self._blobs = blobs

    def check(self, round_: Round, client: str, digest: str) -> None:
        """Raises ContributionError, naming client and layer, unless the blob may be merged in this layer's place."""
        from collabedit.common.contribution_file import ContributionFile
        from collabedit.common.validation import check_contribution

        weights = round_.exchanges[round_.layer]
        where = f"{client}, round {round_.number}, {weights[0] if len(weights) == 1 else 'all layers'}"
        try:
            path = self._blobs.path(digest)
            check_contribution(ContributionFile.open(path), self._rules(round_))
        except BlobError as error:
            raise ContributionError(f"{where}: {error.what}", mend="upload the blob, then contribute it") from error
        except (BadFileError, ContributionError, MismatchError) as error:
            what = error.what.removeprefix(f"{path}: ")
            raise ContributionError(f"{where}: {what}", mend=error.mend) from error

    def merge(self, round_: Round, base: Sequence[LayerWeights]) -> tuple[LayerWeights, ...]:
        """W + Δ of the round's present layer (all layers in one-shot), each a blob, one layer in memory at a time.

        base: the layers of the version that the round stands on; none for version 0. Contributions are summed in the
        order of the client ids. Raises NotPositiveDefiniteError that names the layer and the smallest pivot.
        """
        from collabedit.common.contribution_file import ContributionFile
        from collabedit.common.editors import editor_of
        from collabedit.common.merge import merge_method

        settings = self._settings
        lossy = check_pair(settings.method, settings.editor)
        if lossy:
            LOG.warning(lossy, round=round_.number)
        stands_on = {each.weight: each for each in base}
        files = [ContributionFile.open(self._blobs.path(each.digest)) for each in round_.contributed]
        updates = merge_method(settings.method).merge(
            round_.exchanges[round_.layer],
            lambda weight: self._prior(weight, stands_on.get(weight)),
            files,
            editor_of(settings.editor, settings.hparams),
        )
        merged = []
        for weight, update in updates:
            layer = stands_on.get(weight)
            digest = self._write_weight(weight, layer, update)
            del update
            merged.append(LayerWeights(weight, digest, self._accumulate(weight, layer, files)))
        return tuple(merged)

    def sweep(self, needed: Set[str], done_with: Set[str]) -> None:
        """Removes blobs that nothing rests on: those of `done_with` now, others once they have lain for an hour."""
        keep = needed | {self._settings.covariance_digest}
        before = time.time() - UNUSED_SECONDS
        for digest in tuple(self._blobs.digests()):
            if digest not in keep and (digest in done_with or self._blobs.path(digest).stat().st_mtime < before):
                self._blobs.remove(digest)
        self._blobs.remove_stale(time.time() - UNFINISHED_SECONDS)

    def _rules(self, round_: Round) -> Rules:
        import torch

        from collabedit.common.validation import Rules

        settings, alone = self._settings, self._settings.schedule == "one-shot"
        return Rules(
            shapes={weight: self._model.shape(weight) for weight in round_.exchanges[round_.layer]},
            dtypes=frozenset({torch.float64, getattr(torch, settings.dtype)}),
            encodings=frozenset(ENCODINGS if settings.encoding == "auto" else {settings.encoding}),
            algorithm=ALGORITHMS[settings.editor],
            min_rank=settings.min_edits,
            model_fingerprint=settings.model_fingerprint,
            covariance_fingerprint=settings.covariance_fingerprint,
            schedule=settings.schedule,
            spread=settings.spread if alone else None,
            residual_shares=settings.residual_shares if alone else None,
            base_version=round_.base_version,
            round=round_.number,
        )

    def _prior(self, weight: str, layer: LayerWeights | None) -> Prior:
        """C = β0·λ·C0 + β1·ΣS of the rounds before (eq. 7)."""
        from collabedit.common.covariance_file import CovarianceFile
        from collabedit.common.prior import Prior

        settings = self._settings
        past = self._accumulated(weight, layer)
        return Prior(
            lambda: CovarianceFile.open(self._covariance).mean(weight),
            settings.hparams.mom2_update_weight,
            settings.beta0,
            past,
            settings.beta1,
            self._kept_root(weight),
        )

    def _kept_root(self, weight: str) -> KeptRootFile | None:
        """Where C0's factor is kept, by C0's fingerprint."""
        if self._roots is None:
            return None
        return KeptRootFile(self._roots / self._settings.covariance_fingerprint.removeprefix("sha256:"), weight)

    def _accumulated(self, weight: str, layer: LayerWeights | None) -> Tensor | None:
        """L [d_in, r], float64, with L Lᵀ = ΣS of the rounds before; None where there is none."""
        if layer is None or not layer.kkt_digest:
            return None
        return self._read(layer.kkt_digest, f"{weight}.{KKT}")

    def _accumulate(self, weight: str, layer: LayerWeights | None, files: Sequence[ContributionFile]) -> str:
        """Writes ΣS with this round's added to it; returns the blob's digest, "" where the federation uses none."""
        from collabedit.common.factors import accumulate_kkt

        if self._settings.beta1 == 0:
            return ""
        past, d_in = self._accumulated(weight, layer), self._model.shape(weight)[1]
        total = accumulate_kkt(past, (file.layer(weight) for file in files), d_in=d_in)
        return self._write(f"{weight}.{KKT}", total)

    def _write_weight(self, weight: str, layer: LayerWeights | None, update: Tensor) -> str:
        """W + Δ in W's own dtype; update Δ: [d_out, d_in], float64."""
        import torch

        present = self._read(layer.digest, weight) if layer else self._model.weight(weight)
        merged = (present.to(torch.float64) + update).to(present.dtype)
        if not bool(torch.isfinite(merged).all()):
            raise CollabEditError(f"{weight}: the merged weights are not finite")
        return self._write(weight, merged)

    def _read(self, digest: str, name: str) -> Tensor:
        from collabedit.common.tensor_file import TensorFile

        return TensorFile.open(self._blobs.path(digest)).tensor(name)

    def _write(self, name: str, tensor: Tensor) -> str:
        from collabedit.common.tensor_file import write_tensors

        with self._blobs.scratch() as file:
            write_tensors(file, {name: tensor})
            return self._blobs.adopt(file)
