"""The merge's kernel: Δ = G A⁻¹ with G = Σᵢ Δᵢ(C + Sᵢ) and A = C + Σᵢ Sᵢ (eq. 4), by whichever way is shorter.

Dense: A is summed up and factored. Woodbury: with C = c·F Fᵀ and all factors side by side, L = [L₁ L₂ …],
Δ = R̃ (I + XᵀX)⁻¹ Xᵀ F⁻¹/√c, X = F⁻¹L/√c; F, of C0 alone, is computed once for all rounds. Both are exact: what
differs is rounding, and the number of operations, which alone decides (`dense_operations`, `woodbury_operations`).
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from collabedit.common.condition import System
from collabedit.common.contribution import Dense, Factored, LayerUpdate
from collabedit.common.linalg import Cholesky, add_gram_, add_lower_product_, as_float64, diagonal_blocks
from collabedit.common.prior import Prior

BATCH: Final = 512  # columns of factors that are added at a time: the sums are read and written once for so many


def dense_operations(d_out: int, d_in: int, columns: int, new: int) -> float:
    """Multiplications and additions of the dense way.

    columns: of all thin factors, those of the rounds before among them; new: those that come with an R̃. In this order:
    sum, factor and solve with A; sum G.
    """
    return d_in**2 * columns + d_in**3 / 3 + 2 * d_out * d_in**2 + 2 * d_out * d_in * new


def woodbury_operations(d_out: int, d_in: int, columns: int, new: int, *, root_held: bool) -> float:
    """The same of the way by F, C0's factor. In this order: X; I + XᵀX; its factor and solve; · Xᵀ; · F⁻¹; F itself."""
    own = d_in**2 * columns + d_in * columns**2 + columns**3 / 3 + 2 * d_out * columns**2
    back = 2 * d_out * d_in * columns + d_in**2 * min(d_out, columns)
    return own + back + (0 if root_held else d_in**3 / 3)


def woodbury_is_shorter(d_out: int, d_in: int, columns: int, new: int, *, root_held: bool) -> bool:
    """Whether a merge of so many columns takes fewer operations by Woodbury's formula."""
    by_root = woodbury_operations(d_out, d_in, columns, new, root_held=root_held)
    return by_root < dense_operations(d_out, d_in, columns, new)


class NormalEquations:
    """G and A of one layer, summed upload by upload in the order given, and solved once.

    Thin uploads are held back, in what they take on the wire, as long as Woodbury's formula is the shorter way for all
    of them; from then on, or from the first dense upload on, they go into the sums and are let go.
    """

    def __init__(self, prior: Prior, *, what: str) -> None:
        self._prior = prior
        self._what = what
        self._shape: tuple[int, int] | None = None
        self._thin: list[Factored] = []
        self._new = 0  # columns of all thin uploads so far
        self._gram: Tensor | None = None  # A above the blocks on the diagonal and in them, C below them
        self._diagonal: list[Tensor] = []  # C's own blocks there
        self._moment: Tensor | None = None  # G, less what self._deltas has
        self._deltas: Tensor | None = None  # Σ Δᵢ of the dense uploads, still to be multiplied by C

    def add(self, update: LayerUpdate) -> None:
        """A += S, G += R̃ Lᵀ or Δ(C + S)."""
        self._shape = self._shape or update.shape
        if isinstance(update, Dense):
            self._add_dense(update)
            return
        self._thin.append(update)
        self._new += update.kkt_factor.shape[1]
        if self._gram is not None or not self._by_woodbury():
            self._drain(BATCH)

    def solve(self) -> Tensor:
        """Δ, [d_out, d_in], float64. Raises NotPositiveDefiniteError that names the layer, ValueError for no upload."""
        if self._shape is None:
            raise ValueError(f"{self._what}: nothing to merge")
        root = self._prior.root if self._gram is None and self._by_woodbury() else None
        if root is not None:
            return _woodbury(root, self._prior, self._thin)
        self._drain(1)
        gram, moment = self._sums()
        if self._deltas is not None:
            add_lower_product_(moment, self._deltas, gram, self._diagonal)
            self._deltas = None
        self._gram = self._moment = None
        root = Cholesky.of(gram, what=f"C + KKᵀ of {self._what}", overwrite=True)
        self._prior.tell(lambda: System.of(root))
        return root.solve_right_(moment)

    def _by_woodbury(self) -> bool:
        assert self._shape is not None
        past = self._prior.past
        if self._prior.past_triangle is not None:  # no thin factors of the rounds before: C0's factor is of no use
            return False
        if self._prior.scale <= 0 or self._prior.beta1 < 0:  # then C may be no positive matrix: the dense way tells
            return False
        columns = self._new + (0 if past is None else past.shape[1])
        return woodbury_is_shorter(*self._shape, columns, self._new, root_held=self._prior.root_held)

    def _sums(self) -> tuple[Tensor, Tensor]:
        """A and G; C and 0 at first."""
        if self._gram is None or self._moment is None:
            assert self._shape is not None
            self._gram = self._prior.dense()
            self._diagonal = diagonal_blocks(self._gram)
            self._moment = torch.zeros(self._shape, dtype=torch.float64, device=self._gram.device)
        return self._gram, self._moment

    def _drain(self, least: int) -> None:
        """Moves what is held back into the sums, some `BATCH` columns at a time, while `least` or more wait."""
        gram, moment = self._sums()
        while sum(each.kkt_factor.shape[1] for each in self._thin) >= least:
            factors, residuals = _side_by_side(_take(self._thin))
            add_gram_(gram, factors)
            moment.addmm_(residuals, factors.mT)

    def _add_dense(self, update: Dense) -> None:
        self._drain(1)
        gram, moment = self._sums()
        update.add_kkt_upper_to(gram)
        update.add_delta_kkt_to(moment)
        if self._deltas is None:
            self._deltas = torch.zeros_like(moment)
        self._deltas += update.delta


def _take(thin: list[Factored]) -> list[Factored]:
    """The first updates of `thin`, which loses them: BATCH columns or a few more, or all there are."""
    taken, columns = [], 0
    while thin and columns < BATCH:
        taken.append(thin.pop(0))
        columns += taken[-1].kkt_factor.shape[1]
    return taken


def _side_by_side(updates: list[Factored]) -> tuple[Tensor, Tensor]:
    """[L₁ L₂ …], [d_in, Σr], and [R̃₁ R̃₂ …], [d_out, Σr]; float64."""
    if len(updates) == 1:
        return as_float64(updates[0].kkt_factor), as_float64(updates[0].residual_factor)
    factors = torch.cat([as_float64(each.kkt_factor) for each in updates], 1)
    return factors, torch.cat([as_float64(each.residual_factor) for each in updates], 1)


def _woodbury(root: Cholesky, prior: Prior, thin: list[Factored]) -> Tensor:
    """Δ by F with C0 = F Fᵀ. The past's factors stand before the new ones and have no R̃. Empties `thin`."""
    X = _rows_of_factors(prior, thin)  # Xᵀ: a factor's column is a row here, [Σr, d_in]
    d_out, d_in, columns = thin[0].shape[0] if thin else 0, X.shape[1], X.shape[0]
    new = sum(each.kkt_factor.shape[1] for each in thin)
    residuals = torch.zeros(d_out, columns, dtype=torch.float64, device=X.device)
    torch.cat([as_float64(each.residual_factor) for each in thin], 1, out=residuals[:, columns - new :])
    thin.clear()
    if not columns:
        return torch.zeros(d_out, d_in, dtype=torch.float64, device=X.device)
    root.lower_inverse_(X)
    inner = torch.eye(columns, dtype=torch.float64, device=X.device)
    add_gram_(inner, X, scale=1 / prior.scale)
    core = Cholesky.of(inner, overwrite=True)
    prior.tell(lambda: _system(root, prior.scale, X, core))
    core.solve_right_(residuals)
    if d_out < columns:
        return root.upper_inverse_(residuals @ X).div_(prior.scale)
    return (residuals @ root.upper_inverse_(X)).div_(prior.scale)


def _system(root: Cholesky, scale: float, X: Tensor, core: Cholesky) -> System:
    """A = c·F (I + XᵀX/c) Fᵀ for rows X [Σr, d_in] of F⁻¹L; core: the factor of I + X Xᵀ/c."""
    F = root.factor

    def apply(x: Tensor) -> Tensor:
        y = F.mT @ x
        return F @ (scale * y + X.mT @ (X @ y))

    def solve(b: Tensor) -> Tensor:
        y = root.lower_inverse_(b[None].clone())[0]
        y -= X.mT @ core.solve_left((X @ y)[:, None])[:, 0] / scale
        return root.upper_inverse_(y[None])[0] / scale

    return System(len(F), apply, solve, F.device)


def _rows_of_factors(prior: Prior, thin: list[Factored]) -> Tensor:
    """[√β1·L_past L₁ L₂ …]ᵀ, [Σr, d_in], float64, a new tensor, contiguous."""
    past = prior.past
    blocks = ([] if past is None else [past * prior.beta1**0.5]) + [each.kkt_factor for each in thin]
    rows = torch.empty(
        sum(each.shape[1] for each in blocks), blocks[0].shape[0], dtype=torch.float64, device=blocks[0].device
    )
    for into, block in zip(torch.split(rows, [each.shape[1] for each in blocks]), blocks, strict=True):
        into.copy_(block.mT)
    return rows
