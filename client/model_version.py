"""The model in memory, and whose weights it holds: the base model, a published version, a round half-way.

What comes from the server is a peer's: its name, shape, dtype and finiteness are checked before any of it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from collabedit.client.loading import LoadedModel
from collabedit.client.snapshot import LayerVersion, Version
from collabedit.client.weights import write_weight
from collabedit.common.accumulated import side_by_side
from collabedit.common.covariance_file import CovarianceFile
from collabedit.common.errors import BadFileError
from collabedit.common.prior import Prior
from collabedit.common.settings import FederationSettings
from collabedit.common.tensor_file import CODES, TensorFile
from collabedit.common.triangle import packed_length

Fetch = Callable[[str], Path]


def checked_tensor(file: Path, name: str, shape: tuple[int | None, ...], dtypes: Collection[torch.dtype]) -> Tensor:
    """The one tensor of a file from the server, mapped. `None` in `shape`: any size.

    Raises BadFileError where the file holds anything but `name`, in another shape or dtype, or numbers not finite.
    """
    tensors = TensorFile.open(file)
    mend = "the server sent a file that it should not have; tell its operator"
    if tensors.names != (name,):
        held = ", ".join(each[:100] for each in tensors.names[:3])
        raise BadFileError(f"{name}: the server's file holds {held or 'nothing'}", mend=mend)
    found = tensors.shape(name)
    if len(found) != len(shape) or any(want not in (None, size) for want, size in zip(shape, found, strict=True)):
        raise BadFileError(f"{name}: the server's file has shape {list(found)}, not {list(shape)}", mend=mend)
    if tensors.dtype(name) not in {CODES[each] for each in dtypes}:
        wanted = " or ".join(sorted(CODES[each] for each in dtypes))
        raise BadFileError(f"{name}: the server's file is {tensors.dtype(name)}, not {wanted}", mend=mend)
    tensor = tensors.tensor(name)
    if not all(bool(torch.isfinite(rows).all()) for rows in torch.split(tensor, 256)):
        raise BadFileError(f"{name}: not all numbers of the server's file are finite", mend=mend)
    return tensor


class VersionedModel:
    """The loaded model with a version's weights, and on top of them the first layers that a round has merged.

    fetch: gives the file of a content address, downloaded if need be.
    """

    def __init__(self, loaded: LoadedModel, settings: FederationSettings, fetch: Fetch) -> None:
        self.loaded = loaded
        self.base = Version(0)
        self.applied = 0
        self._weights = settings.edited_weights
        self._fetch = fetch
        self._held = dict.fromkeys(self._weights, "")  # the content address in the model; "": the folder's own weight

    @property
    def digests(self) -> set[str]:
        """The content addresses that the present version needs: its weights and the pieces of what accumulated."""
        return {digest for each in self.base.layers for digest in (each.digest, *each.kkt_digests)}

    def catch_up(self, version: Version) -> None:
        """Writes the weights of `version`, whatever the model holds; nothing is written before all of it is checked."""
        wanted = {each.weight: each.digest for each in version.layers}
        unknown = sorted(set(wanted) - set(self._weights))
        if unknown:
            raise BadFileError(f"version {version.version} has the weight {unknown[0][:200]}, which nobody edits")
        tensors = {name: self._read(name, digest) for name, digest in wanted.items() if self._held[name] != digest}
        for name in self._weights:
            self._hold(name, wanted.get(name, ""), tensors.get(name))
        self.base, self.applied = version, 0

    def restart(self) -> None:
        """Takes the layers of the round under way back: the model holds the base version again."""
        self.catch_up(self.base)

    def apply(self, merged: LayerVersion) -> None:
        """Writes the next merged layer of the round under way. Raises BadFileError where it is not the next one."""
        expected = self._weights[self.applied]
        if merged.weight != expected:
            raise BadFileError(f"the server merged {merged.weight[:200]} where {expected} was next")
        self._hold(expected, merged.digest, self._read(expected, merged.digest))
        self.applied += 1

    def _hold(self, name: str, digest: str, tensor: Tensor | None) -> None:
        if self._held[name] != digest:
            write_weight(self.loaded, name, self.loaded.folder.weight(name) if tensor is None else tensor)
            self._held[name] = digest

    def _read(self, name: str, digest: str) -> Tensor:
        folder = self.loaded.folder
        return checked_tensor(self._fetch(digest), name, folder.shape(name), {folder.weight(name).dtype})

    def accumulated(self, weight: str) -> list[Tensor]:
        """Pieces whose sum is ΣKKᵀ of the rounds up to the base version (`collabedit.common.accumulated`).

        Downloads those that are not at hand: after the first time, what has been added since.
        """
        d_in = self.loaded.folder.shape(weight)[1]
        return [self._piece(weight, digest, d_in) for digest in self._layer(weight).kkt_digests]

    def knows_prior(self, weight: str) -> bool:
        """Whether all that C is made of can be had by a client."""
        return not self._layer(weight).kkt_withheld

    def _layer(self, weight: str) -> LayerVersion:
        return next((each for each in self.base.layers if each.weight == weight), LayerVersion(weight, ""))

    def _piece(self, weight: str, digest: str, d_in: int) -> Tensor:
        file = self._fetch(digest)
        packed = f"{weight}.kkt_triangle"
        if packed in TensorFile.open(file).names:
            return checked_tensor(file, packed, (packed_length(d_in),), {torch.float64})
        return checked_tensor(file, f"{weight}.kkt_factor", (d_in, None), {torch.float64, torch.float32})


class Priors(Mapping[str, Prior]):
    """C = β0·λ·C0 + β1·ΣS of each edited weight (eq. 7), read when it is asked for."""

    def __init__(self, settings: FederationSettings, covariance: CovarianceFile, model: VersionedModel) -> None:
        self._settings = settings
        self._covariance = covariance
        self._model = model

    def __getitem__(self, weight: str) -> Prior:
        settings = self._settings
        factor, triangle = side_by_side(self._model.accumulated(weight) if settings.beta1 else [])
        return Prior(
            self._covariance.mean(weight),
            settings.hparams.mom2_update_weight,
            settings.beta0,
            factor,
            settings.beta1,
            accumulated_triangle=triangle,
        )

    def known(self, weight: str) -> bool:
        """Whether this party can compute C: some of it may be withheld, where no party needs it."""
        return self._model.knows_prior(weight)

    def __iter__(self) -> Iterator[str]:
        return iter(self._settings.edited_weights)

    def __len__(self) -> int:
        return len(self._settings.edited_weights)
