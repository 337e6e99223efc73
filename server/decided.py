"""What was decided about claims, as clients and the next judging are to know it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from collabedit.common.errors import StateError
from collabedit.server.claims import Decision
from collabedit.server.store import Store

LOG = structlog.get_logger()


class Decided:
    """Verdicts' numbers and admins' decisions, read from the store when some are new.

    ask: calls a method of the store in its thread. verdicts: the newest number of each client that has any. decisions:
    by slot. behind: they are older than what is recorded, as they could not be read.
    """

    def __init__(self, store: Store, ask: Callable[[Callable[[], Any]], Awaitable[Any]]) -> None:
        self._store = store
        self._ask = ask
        self.verdicts: Mapping[str, int] = {}
        self.decisions: Mapping[bytes, Decision] = {}
        self.behind = True

    async def read(self, *, decisions: bool = True) -> None:
        """Reads the numbers; decisions: also what admins decided, as is done anyway where that is behind."""
        decisions, self.behind = decisions or self.behind, True
        try:
            if decisions:
                self.decisions = await self._ask(self._store.decisions)
            self.verdicts = await self._ask(self._store.newest_verdicts)
        except StateError as error:
            LOG.error("what was decided could not be read", why=error.what)
        else:
            self.behind = False
