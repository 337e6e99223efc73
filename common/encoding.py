"""The form in which an upload travels: the factors, or Δ and S, whichever has fewer numbers. Pure.

Both carry the same (`collabedit.common.factors`), so that each party may choose for itself and for each layer, and the
merge is the same for any mix.
"""

from __future__ import annotations

from collections.abc import Callable

from collabedit.common.contribution import Factored, LayerUpdate
from collabedit.common.editors import Editor, in_full
from collabedit.common.prior import Prior
from collabedit.common.settings import Encoding, EncodingChoice


def numbers(encoding: Encoding, shape: tuple[int, int], rank: int) -> int:
    """How many numbers a layer takes: r (d_out + d_in), or d_out d_in and one triangle of S. shape: (d_out, d_in)."""
    d_out, d_in = shape
    return rank * (d_out + d_in) if encoding == "factored" else d_out * d_in + d_in * (d_in + 1) // 2


def smaller(shape: tuple[int, int], rank: int) -> Encoding:
    """The encoding that takes fewer numbers; factored where both take as many."""
    both: tuple[Encoding, Encoding] = ("factored", "dense")
    return min(both, key=lambda each: numbers(each, shape, rank))


def encoded(
    update: Factored,
    choice: EncodingChoice,
    editor: Editor,
    prior: Callable[[], Prior] | None,
    *,
    what: str = "the layer",
) -> LayerUpdate:
    """The update of one layer as it is to be uploaded, float64.

    prior: gives what the editor solves with, and is asked for a dense upload only; None where the party does not hold
    C0. Δ cannot be computed without it, and fetching C0 would cost more than it saves: `auto` then stays with the
    factors. Raises ValueError for `dense` without a prior, and as `Editor.solve`.
    """
    wanted = smaller(update.shape, update.kkt_factor.shape[1]) if choice == "auto" else choice
    if wanted == "factored" or (choice == "auto" and prior is None):
        return update
    if prior is None:
        raise ValueError(f"{what}: Δ in full needs the prior")
    return in_full(editor, prior(), update, what=what)
