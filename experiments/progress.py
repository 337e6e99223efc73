"""How an experiment tells how it goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from collabedit.experiments.federation_processes import PartyState


class Listener(Protocol):
    """Told how an experiment goes on."""

    def say(self, line: str) -> None:
        """A step begins."""

    def party(self, state: PartyState) -> None:
        """A party's client came further."""

    def tick(self, what: str, done: int, total: int) -> None:
        """A long step in this process came further."""


def ticking(listener: Listener, what: str) -> Callable[[int, int], None]:
    """The callback `(done, total)` of one long step."""
    return lambda done, total: listener.tick(what, done, total)
