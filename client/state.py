"""The client's durable state: whose it is, its edits, its rounds, and what has been measured and decided."""

from __future__ import annotations

from collabedit.client.edit_life import EditStatus, LedgerEntry, LifeRow, VerdictKind, VerdictNote
from collabedit.client.measurements import Measurements
from collabedit.client.round_ledger import RoundEntry, RoundLedger
from collabedit.client.verdict_ledger import VerdictLedger
from collabedit.common.errors import StateError

__all__ = ["ClientState", "EditStatus", "LedgerEntry", "LifeRow", "RoundEntry", "VerdictKind", "VerdictNote"]


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
