"""Tells the operator, once a version, that what was merged is being forgotten."""

from __future__ import annotations

from typing import Final

import structlog

from collabedit.server.retention import LAST, Fall, fall, rate
from collabedit.server.store import Store

LOG = structlog.get_logger()
WARNED: Final = "retention warning"
NEEDED: Final = LAST + 2  # versions: the newest may not be judged yet


class RetentionWatch:
    """Looks at the clients' counts whenever one has come. Blocks: an event loop calls it in a thread."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def look(self) -> Fall | None:
        """The fall that there is now; the first time that one is found on a version it is logged."""
        found = fall(self._store.retention(NEEDED))
        if found is not None and self._store.stamped(WARNED, str(found.now.version)) is None:
            now, best = found.now, found.best
            LOG.warning(
                "retention fell",
                version=now.version,
                rate=round(rate(now), 4),
                tested=now.tested,
                held=now.held,
                since=best.version,
                before=round(rate(best), 4),
            )
            self._store.stamp(WARNED, str(found.now.version), "logged")
        return found
