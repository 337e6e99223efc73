"""The client's rounds, in its ledger: the one under way with its batch and contributions, and how past ones ended."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from collabedit.client import schema
from collabedit.client.contradictions import about, contradicts, overtaken
from collabedit.client.edit_life import IN_WEIGHTS, WAITING, Cause, EditStatus, LedgerEntry
from collabedit.client.ledger import Ledger, having, parts
from collabedit.client.snapshot import ENDED, Outcome
from collabedit.common.edits import Edit

REPLACED: Final = IN_WEIGHTS | {EditStatus.IN_CONFLICT}  # what a later line of ours may take the place of


@dataclass(frozen=True)
class RoundEntry:
    """One round that this client was in: how it ended, with how many of our edits, and their mean scores."""

    round: int
    outcome: str
    version: int | None
    reason: str
    edits: int
    scores: Mapping[str, Any] | None


class RoundLedger(Ledger):
    """Our part in rounds: entered, contributed to, settled."""

    # ------------------------------------------------------------------------------------------------ in and out

    @property
    def round(self) -> int | None:
        """The round that this client entered and whose outcome it has not noted yet."""
        with self._transaction() as connection:
            held = self._fact(connection, "round")
            return int(held) if held is not None else None

    def enter(self, round_: int, padding: Sequence[Edit] = ()) -> list[LedgerEntry]:
        """Puts every waiting edit into `round_` and returns them; entering the same round again changes nothing.

        Of two that contradict each other the one on the later line is put in; the other is withdrawn. padding: public
        facts that fill the batch up.
        """
        with self._transaction() as connection:
            if self._fact(connection, "round") is None:
                self._pad(connection, round_, padding)
                self._leave_out(connection)
                self._note(connection, "round", str(round_))
                waiting = self._keys(connection, WAITING)
                self._change(connection, waiting, EditStatus.ENTERED, round=round_, reason="")
        return self.batch()

    def _leave_out(self, connection: sa.Connection) -> None:
        waiting = self._select(connection, having(WAITING))
        for key, later in overtaken((each.line, each.edit) for each in waiting).items():
            self._withdraw(connection, [key], Cause.LATER, f"your later line {later}, of the same fact, is entered")

    def settle(self, outcome: Outcome) -> None:
        """Notes how the round ended: its edits are merged, or wait again with the reason.

        What was merged takes the place of edits of ours that were merged before and say otherwise. Repeated, it
        changes nothing.
        """
        merged = outcome.merged
        version = outcome.version if merged else None
        with self._transaction() as connection:
            if self._fact(connection, "round") != str(outcome.round):
                return
            entered = self._keys(connection, [EditStatus.ENTERED])
            if merged:
                self._supersede(connection, outcome)
                values = {"version": version, "reason": "", "scores": None}
                self._change(connection, entered, EditStatus.MERGED, **values)
            else:
                self._back(connection, entered, reason=outcome.reason)
            name = "merged" if merged else outcome.phase.name.lower() if outcome.phase in ENDED else "out"
            said = {"outcome": name, "version": version, "reason": outcome.reason, "edits": len(entered)}
            connection.execute(schema.rounds.delete().where(schema.rounds.c.round == outcome.round))
            connection.execute(schema.rounds.insert().values(round=outcome.round, **said))
            self._leave_round(connection)

    def release(self) -> None:
        """The round did not take us in: its edits wait again as if it had not been."""
        with self._transaction() as connection:
            self._back(connection, self._keys(connection, [EditStatus.ENTERED]))
            self._leave_round(connection)

    def _leave_round(self, connection: sa.Connection) -> None:
        connection.execute(schema.contributions.delete())
        self._note(connection, "round", None)

    def _back(self, connection: sa.Connection, keys: Sequence[str], reason: str | None = None) -> None:
        """Edits wait as they did before they entered; reason: why they do so again, None: the one from before."""
        waited: dict[str, sa.Row[Any]] = {}
        for some in parts(keys):
            of = (schema.life.c.key.in_(some), schema.life.c.status.in_([each.value for each in WAITING]))
            rows = connection.execute(sa.select(schema.life).where(*of).order_by(schema.life.c.seq))
            waited |= {row.key: row for row in rows}
        groups: dict[tuple[EditStatus, int | None, str], list[str]] = {}
        for key in keys:
            before = waited[key]
            groups.setdefault((EditStatus(before.status), before.round, before.reason), []).append(key)
        for (status, round_, said), each in groups.items():
            values = {"round": round_, "reason": said} if reason is None else {"reason": reason}
            self._wait_again(connection, each, status, **values)

    def _supersede(self, connection: sa.Connection, outcome: Outcome) -> None:
        """Withdraws merged edits of ours that say otherwise than those of the round, before these are merged."""
        new = {about(each.edit): each for each in self._select(connection, having([EditStatus.ENTERED]))}
        for old in self._select(connection, having(REPLACED)):
            later = new.get(about(old.edit))
            if later is not None and contradicts(later.edit, old.edit):
                reason = f"your later line {later.line}, of the same fact, was merged in round {outcome.round}"
                self._withdraw(connection, [old.key], Cause.LATER, reason)

    @property
    def ever_merged(self) -> bool:
        """Whether any round has merged edits of ours."""
        with self._transaction() as connection:
            merged = sa.select(schema.rounds.c.round).where(schema.rounds.c.outcome == "merged").limit(1)
            return connection.execute(merged).first() is not None

    def rounds(self) -> list[RoundEntry]:
        """The rounds that this client was in, oldest first."""
        with self._transaction() as connection:
            rows = connection.execute(sa.select(schema.rounds).order_by(schema.rounds.c.round)).all()
        return [
            RoundEntry(
                each.round,
                each.outcome,
                each.version,
                each.reason,
                each.edits,
                json.loads(each.scores) if each.scores else None,
            )
            for each in rows
        ]

    # ------------------------------------------------------------------------------------------------ contributions

    def record_contribution(self, round_: int, attempt: int, layer: int, digest: str) -> None:
        """Notes that the contribution of this layer lies in the outbox, whole."""
        table = schema.contributions
        with self._transaction() as connection:
            here = (table.c.round == round_, table.c.attempt == attempt, table.c.layer == layer)
            connection.execute(table.delete().where(*here))
            connection.execute(table.insert().values(round=round_, attempt=attempt, layer=layer, digest=digest))

    def contributions(self, round_: int, attempt: int) -> dict[int, str]:
        """The content addresses of this attempt's contributions, by layer."""
        table = schema.contributions
        with self._transaction() as connection:
            rows = connection.execute(sa.select(table).where(table.c.round == round_, table.c.attempt == attempt))
            return {row.layer: row.digest for row in rows}

    def record_padding(self, round_: int, pads: Sequence[Edit]) -> None:
        """Notes other public facts that fill the batch of `round_` up; of earlier rounds nothing is kept."""
        with self._transaction() as connection:
            self._pad(connection, round_, pads)

    def _pad(self, connection: sa.Connection, round_: int, pads: Sequence[Edit]) -> None:
        said = {"round": round_, "pads": [each.model_dump(mode="json") for each in pads]}
        self._note(connection, "padding", json.dumps(said))

    def padding(self, round_: int) -> list[Edit]:
        """The facts that were noted for `round_`."""
        with self._transaction() as connection:
            held = json.loads(self._fact(connection, "padding") or "{}")
        return [Edit.model_validate(each) for each in held.get("pads", [])] if held.get("round") == round_ else []
