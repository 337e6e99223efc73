"""Contribution files: safetensors, one pair of tensors a weight, and metadata as strings. No pickle.

`{weight}.residual_factor` [d_out, r] and `{weight}.kkt_factor` [d_in, r] (encoding "factored"), or
`{weight}.delta` [d_out, d_in] and `{weight}.kkt_triangle` [d_in (d_in + 1) / 2], S's upper triangle row after row
(encoding "dense"). `{weight}.kkt` [d_in, d_in], S in full, is read in the triangle's place.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from torch import Tensor

from collabedit.common.contribution import Contribution, Dense, Factored, LayerUpdate, Metadata
from collabedit.common.errors import BadFileError, ContributionError
from collabedit.common.tensor_file import TensorFile, natural, write_tensors
from collabedit.common.triangle import packed_length

FORMAT_VERSION: Final = 1
Halves = tuple[str, str]
FACTORED: Final[Halves] = ("residual_factor", "kkt_factor")
DENSE: Final[Halves] = ("delta", "kkt_triangle")
IN_FULL: Final[Halves] = ("delta", "kkt")
FORMS: Final = (FACTORED, DENSE, IN_FULL)
REWRITE: Final = "write it again with `collab edit`, or copy it again"


def write_contribution(
    path: Path, layers: Mapping[str, LayerUpdate], metadata: Metadata, *, packed: bool = True
) -> None:
    """Writes a contribution file, durably; equal content gives equal bytes.

    packed: a dense S as its triangle, which is what a client uploads; else in full, which any tool reads.
    `format_version`, `encoding` and `dtype` are filled in where all layers agree. Raises BadFileError where the
    folder cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for weight, update in layers.items():
        tensors |= {f"{weight}.{half}": tensor for half, tensor in _pair(update, packed=packed).items()}
    said = metadata.model_dump(exclude_none=True) | {"format_version": FORMAT_VERSION}
    encodings, dtypes = {u.encoding for u in layers.values()}, {str(t.dtype) for t in tensors.values()}
    if len(encodings) == 1:
        said["encoding"] = encodings.pop()
    if len(dtypes) == 1:
        said["dtype"] = dtypes.pop().removeprefix("torch.")
    write_tensors(path, tensors, {key: str(value) for key, value in said.items()})


def _pair(update: LayerUpdate, *, packed: bool) -> dict[str, Tensor]:
    """An update's two tensors by the last part of their names."""
    if isinstance(update, Factored):
        return dict(zip(FACTORED, (update.residual_factor, update.kkt_factor), strict=True))
    if packed:
        return dict(zip(DENSE, (update.delta, update.kkt_triangle), strict=True))
    S = update.kkt_matrix if update.kkt_matrix.ndim == 2 else update.kkt().to(update.dtype)
    return dict(zip(IN_FULL, (update.delta, S), strict=True))


class ContributionFile:
    """A contribution file, mapped; `layer` reads one layer at a time."""

    def __init__(self, path: Path, metadata: Metadata, forms: Mapping[str, Halves]) -> None:
        self.path = path
        self.metadata = metadata
        self._forms = forms

    @classmethod
    def open(cls, path: Path) -> ContributionFile:
        """Opens a file whose names, shapes and dtypes are a contribution's; no tensor is read.

        Raises BadFileError that names the file, the tensor and what is wrong with it.
        """
        tensors = TensorFile.open(path)
        forms = _forms(tensors)
        for weight, halves in forms.items():
            _check_shapes(tensors, weight, halves)
        return cls(path, _metadata(tensors), forms)

    @property
    def weights(self) -> tuple[str, ...]:
        """Full names of the weights that it updates, in the order of the layers."""
        return tuple(self._forms)

    def layer(self, weight: str) -> LayerUpdate:
        """The update of one weight, mapped from the file: its memory is given back with the last use of the update.

        Raises ContributionError where there is none, BadFileError where the file has changed for the worse.
        """
        halves = self._forms.get(weight)
        if halves is None:
            raise ContributionError(f"{self.path}: no update of {weight}")
        tensors = TensorFile.open(self.path)
        _check_shapes(tensors, weight, halves)
        first, second = (tensors.tensor(f"{weight}.{half}") for half in halves)
        return Factored(first, second) if halves == FACTORED else Dense(first, second)

    def read(self) -> Contribution:
        """The whole contribution, still mapped."""
        return Contribution({weight: self.layer(weight) for weight in self.weights}, self.metadata)


def _metadata(tensors: TensorFile) -> Metadata:
    try:
        metadata = Metadata.model_validate(tensors.metadata)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadFileError(f"{tensors.path}: metadata {where}: {first['msg']}", mend=REWRITE) from error
    if (metadata.format_version or FORMAT_VERSION) > FORMAT_VERSION:
        raise BadFileError(
            f"{tensors.path}: format version {metadata.format_version}; this release reads up to {FORMAT_VERSION}",
            mend="upgrade collabedit",
        )
    return metadata


def _forms(tensors: TensorFile) -> dict[str, Halves]:
    """The names of each weight's two tensors, in the order of the layers."""
    found: dict[str, set[str]] = {}
    for name in tensors.names:
        weight, _, half = name.rpartition(".")
        if not weight or not any(half in halves for halves in FORMS):
            raise BadFileError(f"{tensors.path}: unknown tensor {name}", mend=REWRITE)
        found.setdefault(weight, set()).add(half)
    if not found:
        raise BadFileError(f"{tensors.path}: no tensors", mend=REWRITE)
    return {weight: _form(tensors.path, weight, found[weight]) for weight in sorted(found, key=natural)}


def _form(path: Path, weight: str, found: set[str]) -> Halves:
    form = next((halves for halves in FORMS if set(halves) == found), None)
    if form is None:
        wanted = " or ".join(" with ".join(halves) for halves in FORMS)
        raise BadFileError(f"{path}: {weight} has {', '.join(sorted(found))}; a layer is {wanted}", mend=REWRITE)
    return form


def _check_shapes(tensors: TensorFile, weight: str, halves: Halves) -> None:
    first, second = (f"{weight}.{half}" for half in halves)
    for name in (first, second):
        if tensors.dtype(name) not in ("F32", "F64"):
            raise BadFileError(f"{tensors.path}: {name} is {tensors.dtype(name)}, not F32 or F64", mend=REWRITE)
        shape, what = tensors.shape(name), "a triangle" if name.endswith(f".{DENSE[1]}") else "a matrix"
        if len(shape) != (1 if what == "a triangle" else 2) or 0 in shape:
            raise BadFileError(f"{tensors.path}: {name} has shape {shape}, not that of {what}", mend=REWRITE)
    if tensors.dtype(first) != tensors.dtype(second):
        raise BadFileError(f"{tensors.path}: {first} and {second} differ in dtype", mend=REWRITE)
    shape, other = tensors.shape(first), tensors.shape(second)
    d_in = shape[1]
    wanted = {FACTORED: (other[0], d_in), DENSE: (packed_length(d_in),), IN_FULL: (d_in, d_in)}[halves]
    if other != wanted:
        raise BadFileError(f"{tensors.path}: {first} {shape} and {second} {other} do not fit together", mend=REWRITE)
