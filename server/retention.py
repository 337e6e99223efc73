"""How much of what was merged still holds, version by version, and when to warn that it falls. Pure.

Clients score their own merged edits, all or a sample, on each version and tell the two counts (`Report`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from collabedit.server.store import Retention

FALL: Final = 0.05  # of the rate, in absolute terms: less is what one odd round takes and the next gives back
LAST: Final = 10  # versions among which the best is looked for: what was better before them is history
LEAST: Final = 30  # edits tested, of either version: the rate of fewer jumps by itself
DEVIATIONS: Final = 2.0  # standard errors of the difference of two rates, which a fall must exceed too


@dataclass(frozen=True)
class Fall:
    """The rate on `now` is less than on `best` by more than chance and `FALL` allow."""

    best: Retention
    now: Retention

    @property
    def line(self) -> str:
        """For people: by how much, and since when."""
        return (
            f"retention fell from {rate(self.best):.1%} on version {self.best.version}"
            f" to {rate(self.now):.1%} on version {self.now.version}"
            f" ({self.now.held} of {self.now.tested} edits hold)"
        )


def fall(versions: Sequence[Retention]) -> Fall | None:
    """The fall of the newest version told of in full below the best of those before it; None where there is none.

    versions: oldest first. The newest counts once as many clients have told of it as of the one before it: the first
    to tell may be one whose edits always did worse.
    """
    told = list(versions)
    if len(told) > 1 and told[-1].clients < told[-2].clients:
        told.pop()
    enough = [each for each in told[-LAST - 1 :] if each.tested >= LEAST]
    if len(enough) < 2 or enough[-1] is not told[-1]:
        return None
    now = enough[-1]
    best = max(enough[:-1], key=lambda each: (rate(each), each.version))
    return Fall(best, now) if rate(best) - rate(now) > max(FALL, DEVIATIONS * _standard_error(best, now)) else None


def rate(told: Retention) -> float:
    """The share that holds; 1 where nothing was tested."""
    return told.held / told.tested if told.tested else 1.0


def _standard_error(left: Retention, right: Retention) -> float:
    """Of the difference of two rates, were both one rate and their edits drawn apart."""
    both = (left.held + right.held) / (left.tested + right.tested)
    return math.sqrt(both * (1 - both) * (1 / left.tested + 1 / right.tested))
