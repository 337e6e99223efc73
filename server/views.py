"""A round as an answer shows it: at one revision, at one time. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from collabedit.server.rounds import Round


@dataclass(frozen=True)
class View:
    """A round at one revision, for an answer. left: seconds until the present wait ends, if it does.

    restores: the version whose weights the latest one brought back, where it is a rollback. verdicts: the number of
    the newest verdict of each client that has any. settled: as of the round, once those numbers are known.
    """

    round: Round
    revision: int
    latest_version: int
    left: float | None
    restores: int | None = None
    verdicts: Mapping[str, int] = field(default_factory=dict)
    settled: bool = True
