"""Symmetric matrices as their upper triangle, row after row: n (n + 1) / 2 numbers, symmetric by construction.

Read in place: what is mapped from a file is never unpacked as a whole where a few rows at a time do.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt

import torch
from torch import Tensor

from collabedit.common.linalg import ROWS, mirror_


def packed_length(n: int) -> int:
    """Numbers in the triangle of a matrix [n, n]."""
    return n * (n + 1) // 2


def order_of(length: int) -> int:
    """n of a triangle of so many numbers. Raises ValueError where it is none's."""
    n = (isqrt(8 * length + 1) - 1) // 2
    if packed_length(n) != length:
        raise ValueError(f"{length} numbers are no triangle")
    return n


def pack(matrix: Tensor) -> Tensor:
    """The upper triangle of a symmetric matrix [n, n]: [n (n + 1) / 2], in its dtype, a new tensor."""
    return torch.cat([row[place:] for place, row in enumerate(matrix)])


def unpack(packed: Tensor) -> Tensor:
    """The matrix [n, n], float64, from its triangle [n (n + 1) / 2]."""
    n = order_of(len(packed))
    matrix = torch.zeros(n, n, dtype=torch.float64, device=packed.device)
    add_to_upper_(matrix, packed)
    mirror_(matrix)
    return matrix


def add_to_upper_(into: Tensor, packed: Tensor, *, scale: float = 1.0) -> None:
    """The upper triangle of `into` [n, n] += scale · the matrix, in place; what is below it stays."""
    for place, row in enumerate(_rows(packed, len(into))):
        into[place, place:].add_(row, alpha=scale)


def add_product_(into: Tensor, rows: Tensor, packed: Tensor) -> None:
    """into += rows S, in place; rows: [m, n], into: [m, n], float64. Some hundred rows of S are unpacked at a time."""
    n = into.shape[1]
    lines = _rows(packed, n)
    for start in range(0, n, ROWS):
        end = min(start + ROWS, n)
        band = torch.zeros(end - start, n - start, dtype=torch.float64, device=packed.device)  # S[start:end, start:]
        for place in range(end - start):
            band[place, place:] = next(lines)
        square = band[:, : end - start]
        square.copy_(square + square.triu(1).mT)
        into[:, start:].addmm_(rows[:, start:end], band)
        into[:, start:end].addmm_(rows[:, end:], band[:, end - start :].mT)


def _rows(packed: Tensor, n: int) -> Iterator[Tensor]:
    """Row i of the triangle, [n − i], a view."""
    return iter(torch.split(packed, list(range(n, 0, -1))))
