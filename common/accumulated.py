"""ΣS of the rounds before (eq. 7), for hundreds of rounds: a few pieces whose sum it is. Pure.

A piece is a factor L [d_in, r], which stands for L Lᵀ, or a symmetric matrix as its triangle [d_in (d_in + 1) / 2]
(`collabedit.common.triangle`). Each round adds one piece and changes none, so that versions share them. Where the thin
ones would take more than a triangle, or there are too many, all are folded into one. Hence, whatever the round's
number, d_in bounds what a round adds, what is folded, and what all pieces take: two triangles' numbers at most.

Error: a folded sum is what it was plus the new pieces, in float64, and a piece is rounded once; nothing is decomposed
again. So the error after n rounds is at most some n·eps·ΣS, entry by entry where S is not negative, and no round's part
is worn down by the rounds that follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import torch
from torch import Tensor

from collabedit.common import triangle
from collabedit.common.contribution import Factored, LayerUpdate
from collabedit.common.factors import factor_update
from collabedit.common.linalg import add_gram_, as_float64, mirror_

THIN: Final = 4  # up to d_in / 4 columns a sum is factored: that SVD costs about what the round's Cholesky factor does
MOST_PIECES: Final = 32


def part_of(update: LayerUpdate) -> Tensor:
    """S of an upload as a piece, in the dtype of the wire: L, or S's triangle."""
    return update.kkt_factor if isinstance(update, Factored) else update.kkt_triangle


def sum_of(parts: Iterable[Tensor], *, d_in: int) -> Tensor:
    """One piece that is the sum of `parts`, float64: its eigen-factors where all are thin together, else its triangle.

    A function of the sum alone (`collabedit.common.factors`): which part came from whom cannot be read from it. Parts
    are read one after the other, and summed in the order given.
    """
    thin: list[Tensor] = []
    gram: Tensor | None = None
    for part in parts:
        if gram is None and part.ndim == 2 and _columns([*thin, part]) <= d_in // THIN:
            thin.append(as_float64(part))
            continue
        if gram is None:
            gram = _gram(thin, d_in)
        _add_to_upper_(gram, part)
    if gram is not None:
        return triangle.pack(gram)
    keys = torch.cat(thin, 1) if thin else torch.zeros(d_in, 0, dtype=torch.float64)
    return factor_update(keys, keys.new_zeros(0, keys.shape[1])).kkt_factor if thin else keys


def folds(pieces: Sequence[Tensor], *, d_in: int) -> bool:
    """Whether so many pieces, the newest last, are to be folded into one: the rest of a fold is one piece."""
    triangles = sum(piece.ndim == 1 for piece in pieces)
    return len(pieces) > 1 and (triangles > 1 or _columns(pieces) > d_in // 2 or len(pieces) > MOST_PIECES)


def folded(pieces: Sequence[Tensor], *, d_in: int) -> Tensor:
    """One piece that is the sum of all: the factors side by side where they take less than a triangle, else that."""
    if all(piece.ndim == 2 for piece in pieces) and _columns(pieces) <= d_in // 2:
        return torch.cat([as_float64(piece) for piece in pieces], 1)
    return triangle.pack(_gram(pieces, d_in))


def side_by_side(pieces: Sequence[Tensor]) -> tuple[Tensor | None, Tensor | None]:
    """(L, T), as a prior takes the sum: L [d_in, r] of all thin pieces, T of all triangles; None: there are none."""
    thin = [as_float64(piece) for piece in pieces if piece.ndim == 2]
    packed = [as_float64(piece) for piece in pieces if piece.ndim == 1]
    factor = None if not thin else thin[0] if len(thin) == 1 else torch.cat(thin, 1)
    total = None if not packed else packed[0] if len(packed) == 1 else torch.stack(packed).sum(0)
    return factor, total


def rank_bound(pieces: Iterable[Tensor], *, d_in: int) -> int:
    """The greatest rank that the sum can have: its thin pieces' columns, d_in with a triangle."""
    return min(d_in, sum(piece.shape[1] if piece.ndim == 2 else d_in for piece in pieces))


def product(pieces: Sequence[Tensor], *, d_in: int) -> Callable[[Tensor], Tensor]:
    """x ↦ ΣS x for x: [d_in], float64. Thin pieces are used as they are; with a triangle the sum is formed once."""
    if all(piece.ndim == 2 for piece in pieces):
        factors = [as_float64(piece) for piece in pieces]
        return lambda x: sum((factor @ (factor.mT @ x) for factor in factors), torch.zeros_like(x))
    gram = _gram(pieces, d_in)
    mirror_(gram)
    return lambda x: gram @ x


def _columns(pieces: Iterable[Tensor]) -> int:
    return sum(piece.shape[1] for piece in pieces if piece.ndim == 2)


def _gram(pieces: Iterable[Tensor], d_in: int) -> Tensor:
    """The upper triangle of the sum, [d_in, d_in], float64."""
    gram = torch.zeros(d_in, d_in, dtype=torch.float64)
    for piece in pieces:
        _add_to_upper_(gram, piece)
    return gram


def _add_to_upper_(gram: Tensor, piece: Tensor) -> None:
    if piece.ndim == 2:
        add_gram_(gram, as_float64(piece))
    else:
        triangle.add_to_upper_(gram, piece)
