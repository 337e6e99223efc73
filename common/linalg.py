"""Symmetric positive definite systems: factor once, solve many. Everything in float64, and never an inverse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from collabedit.common.errors import NotPositiveDefiniteError

ROWS: Final = 256  # rows compared with columns at a time


def as_float64(tensor: Tensor) -> Tensor:
    """The tensor in float64, on its own device; the tensor itself where it is float64 already."""
    return tensor.to(torch.float64)


def asymmetry(matrix: Tensor) -> float:
    """The largest |A − Aᵀ| of a matrix [n, n], without a second matrix in memory."""
    pairs = zip(torch.split(matrix, ROWS, 0), torch.split(matrix, ROWS, 1), strict=True)
    return max(float((rows - columns.mT).abs().max()) for rows, columns in pairs)


def add_gram_(into: Tensor, factor: Tensor, *, scale: float = 1.0) -> None:
    """The upper triangle of `into` [n, n] += scale · F Fᵀ, F: [n, r]; float64, in place.

    In blocks of rows, each from its diagonal on: half the operations of the whole product, n²·r. Entries below the
    diagonal are changed within the blocks on it, and mean nothing until `mirror_`.
    """
    for start in range(0, into.shape[0], ROWS):
        end = start + ROWS
        into[start:end, start:].addmm_(factor[start:end], factor[start:].mT, alpha=scale)


def diagonal_blocks(matrix: Tensor) -> list[Tensor]:
    """Copies of the blocks on the diagonal within which `add_gram_` and `add_upper_` change entries below it."""
    starts = range(0, matrix.shape[0], ROWS)
    return [matrix[start : start + ROWS, start : start + ROWS].clone() for start in starts]


def add_upper_(into: Tensor, matrix: Tensor) -> None:
    """The upper triangle of `into` += that of a symmetric matrix, both [n, n], in blocks of rows as `add_gram_`."""
    for start in range(0, into.shape[0], ROWS):
        into[start : start + ROWS, start:] += matrix[start : start + ROWS, start:]


def add_lower_product_(into: Tensor, rows: Tensor, matrix: Tensor, diagonal: list[Tensor]) -> None:
    """into += rows C, in place, for the symmetric C of which `matrix` holds what is below the blocks of `diagonal`.

    rows, into: [m, n], float64. So C is still at hand where the upper triangle has become another matrix's.
    """
    for start, block in zip(range(0, matrix.shape[0], ROWS), diagonal, strict=True):
        end = start + ROWS
        below, mine = matrix[start:end, :start], rows[:, start:end]
        into[:, start:end].addmm_(mine, block)
        into[:, start:end].addmm_(rows[:, :start], below.mT)
        into[:, :start].addmm_(mine, below)


def mirror_(matrix: Tensor) -> None:
    """Makes a matrix [n, n] symmetric by its upper triangle, in place."""
    for start in range(0, matrix.shape[0], ROWS):
        end = start + ROWS
        diagonal = matrix[start:end, start:end]
        diagonal.copy_(diagonal.triu() + diagonal.triu(1).mT)
        matrix[end:, start:end] = matrix[start:end, end:].mT


@dataclass(frozen=True)
class Cholesky:
    """A = F Fᵀ with F lower triangular: `factor`, [n, n], float64."""

    factor: Tensor

    @classmethod
    def of(cls, matrix: Tensor, *, what: str = "the matrix", overwrite: bool = False) -> Cholesky:
        """Factors a symmetric positive definite matrix [n, n]; only its upper triangle (row-major) is read.

        what: names the matrix in the error. overwrite: factor in the matrix's own memory where it is float64 and
        contiguous, which spares one [n, n]; the matrix is lost.
        A row and column that are zero throughout are left out of the system (their pivot becomes 1): an input that was
        never active, as ReLU leaves some, has no weight and needs no update. B must be zero there; so is the result.
        Raises NotPositiveDefiniteError that names `what` and the smallest pivot.
        """
        work = as_float64(matrix)
        if not overwrite and work is matrix:
            work = matrix.clone(memory_format=torch.contiguous_format)
        _leave_out_dead(work)
        work = work.contiguous().mT  # column-major, as LAPACK wants it: no further copy is made
        info = torch.empty((), dtype=torch.int32, device=work.device)
        torch.linalg.cholesky_ex(work, out=(work, info))
        order = int(info)
        if order:
            raise _not_positive_definite(what, order, float(work[order - 1, order - 1]))
        return cls(work)

    def solve_left(self, rhs: Tensor) -> Tensor:
        """A⁻¹ B for B: [n, m]; float64, column-major."""
        return self._solve(as_float64(rhs).mT.clone(memory_format=torch.contiguous_format))

    def solve_right(self, lhs: Tensor) -> Tensor:
        """B A⁻¹ for B: [m, n]; float64, row-major."""
        return self._solve(as_float64(lhs).clone(memory_format=torch.contiguous_format)).mT

    def solve_right_(self, lhs: Tensor) -> Tensor:
        """B A⁻¹ in the memory of B: [m, n], float64, contiguous; returns it."""
        return self._solve(lhs).mT

    def lower_inverse_(self, rows: Tensor) -> Tensor:
        """(F⁻¹ rowsᵀ)ᵀ in the memory of `rows`: [m, n], float64, contiguous; returns it."""
        torch.linalg.solve_triangular(self.factor, rows.mT, upper=False, out=rows.mT)
        return rows

    def upper_inverse_(self, rows: Tensor) -> Tensor:
        """rows F⁻¹ in the memory of `rows`: [m, n], float64, contiguous; returns it."""
        torch.linalg.solve_triangular(self.factor.mT, rows.mT, upper=True, out=rows.mT)
        return rows

    def _solve(self, rows: Tensor) -> Tensor:
        """A⁻¹ rowsᵀ in the memory of `rows` [m, n]; torch.cholesky_solve would copy the factor."""
        return self.upper_inverse_(self.lower_inverse_(rows)).mT


def _leave_out_dead(matrix: Tensor) -> None:
    """Puts 1 on the diagonal of rows and columns that are zero throughout, in place; others stay to the bit."""
    diagonal = matrix.diagonal()
    for index in torch.nonzero(diagonal == 0).flatten().tolist():
        if not bool(matrix[index].any()) and not bool(matrix[:, index].any()):
            diagonal[index] = 1.0


def _not_positive_definite(what: str, order: int, pivot: float) -> NotPositiveDefiniteError:
    """Cholesky stops at the first pivot that is not positive: the smallest of those it saw."""
    return NotPositiveDefiniteError(
        f"{what} is not positive definite: its smallest pivot is {pivot:.3e}, at row {order}",
        mend="check that the covariance comes from enough text (more tokens than the layer's inputs) and is finite",
    )
