"""What has been measured of edits, in the ledger: screening, residuals, scores, retention."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, Final, Literal

import sqlalchemy as sa

from collabedit.client.edit_life import OVERWRITTEN, WAITING, EditStatus, LedgerEntry
from collabedit.client.ledger import Ledger, having, write_by_key
from collabedit.client.schema import edits, residuals, retention, rounds

HELD: Final = frozenset({EditStatus.VERIFIED, EditStatus.FORGOTTEN})
Residual = Literal["fresh", "held"]


class Measurements(Ledger):
    """How edits do on the versions that this client has held."""

    # ------------------------------------------------------------------------------------------------ before a round

    def unscreened(self, version: int) -> list[LedgerEntry]:
        """Waiting edits that were not screened on that version."""
        with self._transaction() as connection:
            return self._select(connection, *_unscreened(version))

    def is_screened(self, version: int) -> bool:
        """Whether there are none."""
        with self._transaction() as connection:
            return connection.execute(sa.select(edits.c.key).where(*_unscreened(version)).limit(1)).first() is None

    def screened(self, version: int, known: Mapping[str, str], measured: Mapping[str, Mapping[str, Any]]) -> None:
        """Notes that all waiting edits were screened on a version.

        known: of those that it holds already, which are skipped from now on, the reason by key. measured: what was
        found, by key.
        """
        with self._transaction() as connection:
            waiting = self._keys(connection, WAITING)
            connection.execute(edits.update().where(having(WAITING)).values(screened=version))
            found = {key: {"measured": json.dumps(dict(measured[key]))} for key in waiting if key in measured}
            write_by_key(connection, found)
            for reason in dict.fromkeys(known.values()):
                held = [key for key in waiting if known.get(key) == reason]
                self._change(connection, held, EditStatus.KNOWN, version=version, reason=reason)

    def record_residuals(self, kind: Residual, values: Mapping[str, float]) -> None:
        """Stores ‖z − h‖ by key: of edits as they were first searched for ("fresh"), or once merged ("held")."""
        rows = [{"kind": kind, "key": key, "value": value} for key, value in values.items()]
        with self._transaction() as connection:
            if rows:  # replaced, so that what is measured anew is the newest
                connection.execute(residuals.insert().prefix_with("OR REPLACE"), rows)

    def residual_history(self) -> tuple[list[float], list[float]]:
        """Every residual stored, fresh and held, each in the order in which they were."""
        order = sa.text("rowid")
        with self._transaction() as connection:
            rows = connection.execute(sa.select(residuals.c.kind, residuals.c.value).order_by(order)).all()
        return [row.value for row in rows if row.kind == "fresh"], [row.value for row in rows if row.kind == "held"]

    # ------------------------------------------------------------------------------------------------ after a round

    def record_scores(self, scores: Mapping[str, Mapping[str, Any]], means: Mapping[int, Mapping[str, Any]]) -> None:
        """Stores the scores of edits by key, and the means by round. A merged edit is verified now, or has failed."""
        with self._transaction() as connection:
            self._score(connection, scores)
            self._judge(connection, scores)
            for number, mean in means.items():
                row = rounds.c.round == number
                connection.execute(rounds.update().where(row).values(scores=json.dumps(dict(mean))))

    def _score(self, connection: sa.Connection, scores: Mapping[str, Mapping[str, Any]]) -> None:
        write_by_key(connection, {key: {"scores": json.dumps(dict(each))} for key, each in scores.items()})

    def _judge(self, connection: sa.Connection, scores: Mapping[str, Mapping[str, Any]]) -> None:
        """Merged edits are verified or have failed once they are scored."""
        merged = set(self._keys(connection, [EditStatus.MERGED]))
        took = [key for key in scores if key in merged and scores[key].get("took")]
        failed = [key for key in scores if key in merged and not scores[key].get("took")]
        self._change(connection, took, EditStatus.VERIFIED, reason="")
        self._change(connection, failed, EditStatus.FAILED, reason="it did not take on the merged weights")

    def held(self, before: int | None = None) -> list[str]:
        """Keys of the edits whose retention is measured: those that held when they were last scored, and those
        forgotten since; before: those alone that an earlier version was made with.
        """
        return self._since(HELD, before)

    def known(self, before: int | None = None) -> list[str]:
        """Keys of the edits that were skipped; before: those alone that an earlier version was seen to hold."""
        return self._since([EditStatus.KNOWN], before)

    def _since(self, statuses: Collection[EditStatus], before: int | None) -> list[str]:
        earlier = edits.c.version < before if before is not None else sa.true()
        with self._transaction() as connection:
            found = sa.select(edits.c.key).where(having(statuses), earlier).order_by(edits.c.seq)
            return list(connection.scalars(found))

    def overwritten(self) -> list[str]:
        """Keys of the edits that a later round of another party's overwrote."""
        told = edits.c.reason.contains(OVERWRITTEN, autoescape=True)
        with self._transaction() as connection:
            found = sa.select(edits.c.key).where(having([EditStatus.IN_CONFLICT]), told).order_by(edits.c.seq)
            return list(connection.scalars(found))

    def hold_again(self, version: int, scores: Mapping[str, Mapping[str, Any]]) -> None:
        """Notes that a version holds edits that were overwritten: their scores on it, by key."""
        with self._transaction() as connection:
            self._score(connection, scores)
            self._change(connection, list(scores), EditStatus.VERIFIED, reason=f"version {version} holds it again")

    def record_retention(
        self,
        version: int,
        held: Mapping[str, Mapping[str, Any]],
        forgotten: Mapping[str, Mapping[str, Any]],
        *,
        resubmit: bool,
    ) -> None:
        """Stores how edits of `held()` do on a version: the scores of those that hold, and of those that do not.

        One that was forgotten and holds again is verified again. resubmit: what is forgotten, whenever that was found,
        waits for a round again as long as the file holds its line.
        """
        with self._transaction() as connection:
            connection.execute(retention.delete().where(retention.c.version == version))
            tested = len(held) + len(forgotten)
            connection.execute(retention.insert().values(version=version, tested=tested, held=len(held)))
            self._score(connection, held)
            self._score(connection, forgotten)
            back = [key for key in self._keys(connection, [EditStatus.FORGOTTEN]) if key in held]
            lost = [key for key in self._keys(connection, [EditStatus.VERIFIED]) if key in forgotten]
            self._change(connection, back, EditStatus.VERIFIED, reason="")
            self._change(connection, lost, EditStatus.FORGOTTEN, reason=f"it holds no longer on version {version}")
            if resubmit:
                self._resubmit(connection)

    def resubmit_forgotten(self) -> None:
        """Lets forgotten edits wait for a round again, those whose lines the file holds."""
        with self._transaction() as connection:
            self._resubmit(connection)

    def _resubmit(self, connection: sa.Connection) -> None:
        here = (having([EditStatus.FORGOTTEN]), edits.c.present == 1)
        self._change(connection, connection.scalars(sa.select(edits.c.key).where(*here)).all(), EditStatus.RESUBMITTED)

    def retained(self, version: int) -> tuple[int, int] | None:
        """How many edits were looked at on a version, and how many of them held; None where none were yet."""
        with self._transaction() as connection:
            row = connection.execute(sa.select(retention).where(retention.c.version == version)).one_or_none()
        return (row.tested, row.held) if row is not None else None


def _unscreened(version: int) -> tuple[sa.ColumnElement[bool], ...]:
    return having(WAITING), sa.or_(edits.c.screened.is_(None), edits.c.screened != version)
