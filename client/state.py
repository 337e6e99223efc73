"""The client's durable state: whose it is, its edits, its rounds, and what has been measured and decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from collabedit.client.edit_life import EditStatus, LedgerEntry, LifeRow, VerdictKind, VerdictNote
from collabedit.client.measurements import Measurements
from collabedit.client.round_ledger import RoundEntry, RoundLedger
from collabedit.client.verdict_ledger import VerdictLedger
from collabedit.common.errors import StateError

__all__ = ["ClientState", "EditStatus", "LedgerEntry", "LifeRow", "RoundEntry", "VerdictKind", "VerdictNote", "Whole"]


@dataclass(frozen=True)
class Whole:
    """All that one state folder's ledger says, at one instant.

    lives: by key, oldest event first. retention: (version, edits looked at, those that held), oldest first.
    """

    federation: str | None
    round: int | None
    entries: Sequence[LedgerEntry]
    lives: Mapping[str, Sequence[LifeRow]]
    rounds: Sequence[RoundEntry]
    retention: Sequence[tuple[int, int, int]]


class ClientState(Measurements, RoundLedger, VerdictLedger):
    """The database of one state folder. Use as a context manager."""

    @property
    def federation(self) -> str | None:
        """The federation that this folder belongs to; None before the first joining."""
        with self._transaction() as connection:
            return self._fact(connection, "federation")

    def demand(self, federation: str) -> None:
        """Raises StateError where the folder belongs to another federation."""
        held = self.federation
        if held not in (None, federation):
            raise StateError(
                f"{self._file.parent}: the state belongs to the federation {held}, the server to {federation}",
                mend="give each federation a folder of its own with --state, or the other server with --server",
            )

    def bind(self, federation: str) -> None:
        """Makes the folder the federation's, for good. Raises StateError where it belongs to another."""
        self.demand(federation)
        with self._transaction() as connection:
            self._note(connection, "federation", federation)

    def whole(self) -> Whole:
        """Everything, as it is at one instant."""
        with self._transaction() as connection:
            held = self._fact(connection, "round")
            return Whole(
                self._fact(connection, "federation"),
                int(held) if held is not None else None,
                self._select(connection),
                self._lives(connection),
                self._rounds(connection),
                self._retention(connection),
            )
