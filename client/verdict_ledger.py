"""What a client told of its edits under blinded names, and what was decided about them, in its ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from collabedit.client import schema
from collabedit.client.edit_life import Cause, EditStatus, VerdictNote, after_verdict
from collabedit.client.ledger import Ledger
from collabedit.common.blinding import Claim


class VerdictLedger(Ledger):
    """Claims told, verdicts heeded, reports made."""

    def note_claims(self, claims: Sequence[tuple[Claim, str]]) -> None:
        """Remembers the blinded names of edits, by key, before the server is told them."""
        rows = [{"slot": claim.slot, "fact": claim.fact, "key": key} for claim, key in claims]
        with self._transaction() as connection:
            if rows:
                connection.execute(schema.claims.insert().prefix_with("OR IGNORE"), rows)

    def claimed(self) -> Mapping[Claim, Sequence[str]]:
        """The keys of the edits that were told under each blinded name, with the present key or an earlier one."""
        named: dict[Claim, list[str]] = {}
        with self._transaction() as connection:
            for row in connection.execute(sa.select(schema.claims).order_by(schema.claims.c.key)):
                named.setdefault(Claim(row.slot, row.fact), []).append(row.key)
        return named

    @property
    def heeded(self) -> int:
        """Number of the last verdict that the ledger knows; 0 before the first."""
        with self._transaction() as connection:
            return self._number(connection, "heeded")

    def heed(self, verdicts: Sequence[VerdictNote], through: int = 0) -> None:
        """Does what verdicts say, in their order; those heeded before change nothing.

        through: number of the newest verdict that was asked for, where those above the last one here are about claims
        that no edit in this ledger has.
        """
        with self._transaction() as connection:
            before = self._number(connection, "heeded")
            for note in sorted(verdicts, key=lambda each: each.number):
                if note.number > before:
                    self._heed(connection, note)
            newest = max((before, through, *(note.number for note in verdicts)))
            self._note(connection, "heeded", str(newest))

    def _heed(self, connection: sa.Connection, note: VerdictNote) -> None:
        table = schema.edits
        held = connection.execute(sa.select(table.c.status, table.c.cause).where(table.c.key == note.key)).one_or_none()
        if held is None:
            return
        status, cause = EditStatus(held.status), Cause(held.cause) if held.cause else None
        to = after_verdict(note.kind, status, cause)
        if to is EditStatus.WITHDRAWN:
            self._withdraw(connection, [note.key], Cause.VERDICT, note.reason)
        elif to is EditStatus.RESUBMITTED:
            self._wait_again(connection, [note.key], to, reason=note.reason, augmented=1)
        elif to is EditStatus.PENDING:
            self._wait_again(connection, [note.key], to, reason=note.reason)
        elif to is not None or status not in (EditStatus.KNOWN, EditStatus.WITHDRAWN):
            self._change(connection, [note.key], to, reason=note.reason)

    @property
    def reported(self) -> int:
        """The last round whose base version's scores were reported to the server; 0 before the first."""
        with self._transaction() as connection:
            return self._number(connection, "reported")

    def note_reported(self, round_: int) -> None:
        """Notes that the report to `round_` has reached the server."""
        with self._transaction() as connection:
            self._note(connection, "reported", str(max(round_, self._number(connection, "reported"))))
