"""Whatever happens to a round, a server that is started again has it as it was, with its verdicts' numbers."""

from __future__ import annotations

import sqlalchemy
from hypothesis import settings
from sqlalchemy.pool import StaticPool
from test_round_machine import CLIENTS, RoundMachine

from collabedit.server.events import Event
from collabedit.server.sql_store import SqlStore
from collabedit.server.store import Recorded
from collabedit.server.tables import METADATA, REVISION


class RecordedRounds(RoundMachine):
    """Every state is recorded, and read back by a store that knows nothing else."""

    def apply(self, event: Event) -> None:
        """What the database says after each event is what happened."""
        if not hasattr(self, "store"):
            engine = sqlalchemy.create_engine(
                "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
            )
            METADATA.create_all(engine)
            with engine.begin() as connection:
                connection.execute(sqlalchemy.insert(REVISION).values(id=1, value=0))
            self.store, self.given = SqlStore(engine), []
            self.store.record(self.round)
        before = self.round
        super().apply(event)
        self.given += self.round.verdicts[len(before.verdicts) :]
        revision = self.store.record(self.round)
        assert self.store.latest_round() == Recorded(self.round, revision)
        self.check_verdicts()

    def check_verdicts(self) -> None:
        """Numbered as they were given, each told to its client alone, and once."""
        told = dict(enumerate(self.given, 1))
        found = {each.number: each.verdict for name in CLIENTS for each in self.store.verdicts(name, 0, 999)}
        assert found == told
        newest = {verdict.client: number for number, verdict in told.items()}
        assert self.store.newest_verdicts() == newest

    def teardown(self) -> None:
        """Lets go of the database."""
        if hasattr(self, "store"):
            self.store.close()


TestRecordedRounds = RecordedRounds.TestCase
TestRecordedRounds.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)
