"""Covariance files: `{weight}.covariance`, [d_in, d_in], the mean E[kkᵀ] over public text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from collabedit.common.errors import BadFileError
from collabedit.common.linalg import as_float64, asymmetry
from collabedit.common.tensor_file import TensorFile, natural, write_tensors

FORMAT_VERSION: Final = 1
SUFFIX: Final = ".covariance"
ASYMMETRY: Final = 1e-5  # of the largest entry: what float32 accumulation may leave
MEASURE: Final = "measure it again with `collab covariance`, or copy it again"


class CovarianceMetadata(BaseModel):
    """What a covariance file says about itself. None: the file does not say (it came from elsewhere)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format_version: int | None = Field(default=None, ge=1)
    model_fingerprint: str | None = None
    text: str | None = Field(default=None, description="what the text was, and its digest")
    tokens: int | None = Field(default=None, ge=0, description="number of vectors in the mean")
    documents: int | None = Field(default=None, ge=0, description="texts that they come from, the last perhaps in part")
    stopped_by: str | None = Field(
        default=None, description="the stopping rule that was asked for; tokens and documents say what was used"
    )
    model_dtype: str | None = Field(default=None, description="precision of the model that was run")
    sums_dtype: str | None = Field(default=None, description="precision in which products were formed and summed")
    batch_tokens: int | None = Field(default=None, ge=1, description="tokens of a pass; sets the order of summation")
    max_length: int | None = Field(default=None, ge=1, description="tokens at which texts were cut")


def write_covariance(path: Path, means: Mapping[str, Tensor], metadata: CovarianceMetadata) -> None:
    """Writes a covariance file, durably; equal content gives equal bytes.

    means: E[kkᵀ] by the weight's full name, each [d_in, d_in], float32 or float64, written as it is.
    """
    said = metadata.model_dump(exclude_none=True) | {"format_version": FORMAT_VERSION}
    tensors = {f"{weight}{SUFFIX}": mean for weight, mean in means.items()}
    write_tensors(path, tensors, {key: str(value) for key, value in said.items()})


class CovarianceFile:
    """A covariance file, mapped; `mean` reads one layer at a time."""

    def __init__(self, path: Path, metadata: CovarianceMetadata, tensors: TensorFile) -> None:
        self.path = path
        self.metadata = metadata
        self.weights: tuple[str, ...] = tuple(name.removesuffix(SUFFIX) for name in tensors.names)

    @classmethod
    def open(cls, path: Path) -> CovarianceFile:
        """Opens a file whose names, shapes and dtypes are a covariance's; no tensor is read.

        Raises BadFileError that names the file, the tensor and what is wrong with it.
        """
        tensors = TensorFile.open(path)
        if not tensors.names:
            raise BadFileError(f"{path}: no tensors", mend=MEASURE)
        for name in tensors.names:
            shape = tensors.shape(name)
            if not name.endswith(SUFFIX) or name == SUFFIX:
                raise BadFileError(f"{path}: {name} is no covariance: its name must end in {SUFFIX}", mend=MEASURE)
            if len(shape) != 2 or shape[0] != shape[1] or not shape[0]:
                raise BadFileError(f"{path}: {name} has shape {shape}, which is not square", mend=MEASURE)
            if tensors.dtype(name) not in ("F32", "F64"):
                raise BadFileError(f"{path}: {name} is {tensors.dtype(name)}, not F32 or F64", mend=MEASURE)
        try:
            metadata = CovarianceMetadata.model_validate(tensors.metadata)
        except ValidationError as error:
            raise BadFileError(f"{path}: metadata: {error.errors()[0]['msg']}", mend=MEASURE) from error
        return cls(path, metadata, tensors)

    def mean(self, weight: str) -> Tensor:
        """C0 = E[kkᵀ] of one weight's inputs, [d_in, d_in], float64, symmetric to the bit.

        Raises BadFileError where the file lacks the weight, or the matrix is not finite or not symmetric.
        """
        if weight not in self.weights:
            known = ", ".join(sorted(self.weights, key=natural))
            raise BadFileError(
                f"{self.path}: no covariance of {weight} (it has {known})",
                mend="measure it with the hyperparameters whose layers are edited: `collab covariance`",
            )
        mean = as_float64(TensorFile.open(self.path).tensor(f"{weight}{SUFFIX}"))
        largest = float(torch.linalg.vector_norm(mean, ord=float("inf")))
        if not largest < float("inf"):
            raise BadFileError(f"{self.path}: the covariance of {weight} is not finite", mend=MEASURE)
        if asymmetry(mean) > ASYMMETRY * largest:
            raise BadFileError(f"{self.path}: the covariance of {weight} is not symmetric", mend=MEASURE)
        return torch.add(mean, mean.mT).div_(2)
