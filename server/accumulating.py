"""ΣKKᵀ of the rounds before, as blobs: the pieces of a version, what of them clients may read, the next round's.

What clients read changes only when two parties or more have contributed since it last did: what a party uploads is
never the difference of two sums that others can read. Until then its S is withheld. In a federation whose clients
compute with C themselves what is withheld is no part of C yet, because C is one matrix for all; where they leave C to
the server, it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from collabedit.common.settings import FederationSettings
from collabedit.server.blobs import BlobStore
from collabedit.server.rounds import Past

if TYPE_CHECKING:
    from torch import Tensor

FACTOR: Final = "kkt_factor"
TRIANGLE: Final = "kkt_triangle"
Pieces = Sequence[str]


class Accumulator:
    """The accumulated sums of a federation, in its blob store."""

    def __init__(self, settings: FederationSettings, blobs: BlobStore) -> None:
        self._settings = settings
        self._blobs = blobs

    def in_prior(self, weight: str, past: Past) -> list[Tensor]:
        """The pieces of ΣS that C is made of, mapped."""
        own = () if self._settings.client_needs_prior else past.withheld
        return self._read(weight, (*past.released, *own))

    def every(self, weight: str, past: Past) -> list[Tensor]:
        """All pieces of ΣS, mapped."""
        return self._read(weight, (*past.released, *past.withheld))

    def add(self, weight: str, past: Past, parties: Iterable[str], parts: Iterable[Tensor], *, d_in: int) -> Past:
        """The sum with a round's parts in it: S of each party as a piece, in the order of the merge, read one by one.

        `past` itself where the federation accumulates nothing (β1 = 0).
        """
        from collabedit.common.accumulated import sum_of

        if self._settings.beta1 == 0:
            return past
        since = {*parties, past.party} - {""}
        if len(since) == 1:
            new = sum_of(parts, d_in=d_in)
            return Past(past.released, self._appended(weight, past.withheld, new, d_in), since.pop())
        new = sum_of(_one_after_the_other(self._read(weight, past.withheld), parts), d_in=d_in)
        return Past(self._appended(weight, past.released, new, d_in))

    def _appended(self, weight: str, pieces: Pieces, new: Tensor, d_in: int) -> tuple[str, ...]:
        """The pieces with a new one; one alone, where it is time to fold them."""
        from collabedit.common.accumulated import folded, folds

        every = [*self._read(weight, pieces), new]
        if folds(every, d_in=d_in):
            return (self._write(weight, folded(every, d_in=d_in)),)
        return (*pieces, self._write(weight, new))

    def _read(self, weight: str, pieces: Pieces) -> list[Tensor]:
        from collabedit.common.tensor_file import TensorFile

        files = [TensorFile.open(self._blobs.path(digest)) for digest in pieces]
        return [file.tensor(_name(weight, triangle=f"{weight}.{TRIANGLE}" in file.names)) for file in files]

    def _write(self, weight: str, piece: Tensor) -> str:
        from collabedit.common.tensor_file import write_tensors

        with self._blobs.scratch() as file:
            write_tensors(file, {_name(weight, triangle=piece.ndim == 1): piece})
            return self._blobs.adopt(file)


def _name(weight: str, *, triangle: bool) -> str:
    return f"{weight}.{TRIANGLE if triangle else FACTOR}"


def _one_after_the_other(*groups: Iterable[Tensor]) -> Iterator[Tensor]:
    for group in groups:
        yield from group
