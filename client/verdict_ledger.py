"""What a client told of its edits under blinded names, and what was decided about them, in its ledger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import sqlalchemy as sa

from collabedit.client import schema
from collabedit.client.edit_life import Cause, EditStatus, VerdictNote, after_verdict
from collabedit.client.ledger import Ledger, parts
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
            for some in _apart(
                sorted((each for each in verdicts if each.number > before), key=lambda note: note.number)
            ):
                self._heed(connection, some)
            newest = max((before, through, *(note.number for note in verdicts)))
            self._note(connection, "heeded", str(newest))

    def _heed(self, connection: sa.Connection, notes: Mapping[str, VerdictNote]) -> None:
        """Does what verdicts say, one of each edit, by its key."""
        table = schema.edits
        changes: dict[tuple[EditStatus | None, str], list[str]] = {}
        for some in parts(notes):
            of = sa.select(table.c.key, table.c.status, table.c.cause).where(table.c.key.in_(some))
            for row in connection.execute(of):
                status, cause = EditStatus(row.status), Cause(row.cause) if row.cause else None
                to = after_verdict(notes[row.key].kind, status, cause)
                if to is not None or status not in (EditStatus.KNOWN, EditStatus.WITHDRAWN):
                    changes.setdefault((to, notes[row.key].reason), []).append(row.key)
        for (to, reason), keys in changes.items():
            self._obey(connection, keys, to, reason)

    def _obey(self, connection: sa.Connection, keys: Sequence[str], to: EditStatus | None, reason: str) -> None:
        if to is EditStatus.WITHDRAWN:
            self._withdraw(connection, keys, Cause.VERDICT, reason)
        elif to is EditStatus.RESUBMITTED:
            self._wait_again(connection, keys, to, reason=reason, augmented=1)
        elif to is EditStatus.PENDING:
            self._wait_again(connection, keys, to, reason=reason)
        else:
            self._change(connection, keys, to, reason=reason)

    @property
    def reported(self) -> int:
        """The last round whose base version's scores were reported to the server; 0 before the first."""
        with self._transaction() as connection:
            return self._number(connection, "reported")

    def note_reported(self, round_: int) -> None:
        """Notes that the report to `round_` has reached the server."""
        with self._transaction() as connection:
            self._note(connection, "reported", str(max(round_, self._number(connection, "reported"))))


def _apart(notes: Iterable[VerdictNote]) -> Iterator[dict[str, VerdictNote]]:
    """The verdicts in their order, by key: as many together as are about different edits."""
    together: dict[str, VerdictNote] = {}
    for note in notes:
        if note.key in together:
            yield together
            together = {}
        together[note.key] = note
    yield together
