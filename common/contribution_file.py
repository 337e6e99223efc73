"""Contribution files: safetensors, one pair of tensors a weight, and metadata as strings. No pickle.

`{weight}.residual_factor` [d_out, r] and `{weight}.kkt_factor` [d_in, r] (encoding "factored"), or
`{weight}.delta` [d_out, d_in] and `{weight}.kkt` [d_in, d_in] (encoding "dense").
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

FORMAT_VERSION: Final = 1
HALVES: Final = {
    "factored": ("residual_factor", "kkt_factor"),
    "dense": ("delta", "kkt"),
}
ENCODING_OF: Final = {half: encoding for encoding, halves in HALVES.items() for half in halves}
REWRITE: Final = "write it again with `collab edit`, or copy it again"


def write_contribution(path: Path, layers: Mapping[str, LayerUpdate], metadata: Metadata) -> None:
    """Writes a contribution file, durably; equal content gives equal bytes.

    `format_version`, `encoding` and `dtype` are filled in where all layers agree. Raises BadFileError where the
    folder cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for weight, update in layers.items():
        pair = (
            (update.residual_factor, update.kkt_factor)
            if isinstance(update, Factored)
            else (update.delta, update.kkt_matrix)
        )
        tensors |= {f"{weight}.{half}": tensor for half, tensor in zip(HALVES[update.encoding], pair, strict=True)}
    said = metadata.model_dump(exclude_none=True) | {"format_version": FORMAT_VERSION}
    encodings, dtypes = {u.encoding for u in layers.values()}, {str(t.dtype) for t in tensors.values()}
    if len(encodings) == 1:
        said["encoding"] = encodings.pop()
    if len(dtypes) == 1:
        said["dtype"] = dtypes.pop().removeprefix("torch.")
    write_tensors(path, tensors, {key: str(value) for key, value in said.items()})


class ContributionFile:
    """A contribution file, mapped; `layer` reads one layer at a time."""

    def __init__(self, path: Path, metadata: Metadata, encodings: Mapping[str, str]) -> None:
        self.path = path
        self.metadata = metadata
        self._encodings = encodings

    @classmethod
    def open(cls, path: Path) -> ContributionFile:
        """Opens a file whose names, shapes and dtypes are a contribution's; no tensor is read.

        Raises BadFileError that names the file, the tensor and what is wrong with it.
        """
        tensors = TensorFile.open(path)
        encodings = _encodings(tensors)
        for weight, encoding in encodings.items():
            _check_shapes(tensors, weight, encoding)
        return cls(path, _metadata(tensors), encodings)

    @property
    def weights(self) -> tuple[str, ...]:
        """Full names of the weights that it updates, in the order of the layers."""
        return tuple(self._encodings)

    def layer(self, weight: str) -> LayerUpdate:
        """The update of one weight, mapped from the file: its memory is given back with the last use of the update.

        Raises ContributionError where there is none, BadFileError where the file has changed for the worse.
        """
        encoding = self._encodings.get(weight)
        if encoding is None:
            raise ContributionError(f"{self.path}: no update of {weight}")
        tensors = TensorFile.open(self.path)
        _check_shapes(tensors, weight, encoding)
        first, second = (tensors.tensor(f"{weight}.{half}") for half in HALVES[encoding])
        return Factored(first, second) if encoding == "factored" else Dense(first, second)

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


def _encodings(tensors: TensorFile) -> dict[str, str]:
    """The encoding of each weight, in the order of the layers."""
    halves: dict[str, set[str]] = {}
    for name in tensors.names:
        weight, _, half = name.rpartition(".")
        if half not in ENCODING_OF or not weight:
            raise BadFileError(f"{tensors.path}: unknown tensor {name}", mend=REWRITE)
        halves.setdefault(weight, set()).add(half)
    if not halves:
        raise BadFileError(f"{tensors.path}: no tensors", mend=REWRITE)
    encodings = {}
    for weight in sorted(halves, key=natural):
        encoding = next((e for e, pair in HALVES.items() if set(pair) == halves[weight]), None)
        if encoding is None:
            found = ", ".join(sorted(halves[weight]))
            wanted = " or ".join(" with ".join(pair) for pair in HALVES.values())
            raise BadFileError(f"{tensors.path}: {weight} has {found}; a layer is {wanted}", mend=REWRITE)
        encodings[weight] = encoding
    return encodings


def _check_shapes(tensors: TensorFile, weight: str, encoding: str) -> None:
    first, second = (f"{weight}.{half}" for half in HALVES[encoding])
    for name in (first, second):
        if tensors.dtype(name) not in ("F32", "F64"):
            raise BadFileError(f"{tensors.path}: {name} is {tensors.dtype(name)}, not F32 or F64", mend=REWRITE)
        if len(tensors.shape(name)) != 2 or 0 in tensors.shape(name):
            raise BadFileError(
                f"{tensors.path}: {name} has shape {tensors.shape(name)}, not that of a matrix", mend=REWRITE
            )
    if tensors.dtype(first) != tensors.dtype(second):
        raise BadFileError(f"{tensors.path}: {first} and {second} differ in dtype", mend=REWRITE)
    shape, other = tensors.shape(first), tensors.shape(second)
    fits = shape[1] == other[1] if encoding == "factored" else other == (shape[1], shape[1])
    if not fits:
        raise BadFileError(f"{tensors.path}: {first} {shape} and {second} {other} do not fit together", mend=REWRITE)
