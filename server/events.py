"""What can happen to a round, as values; an event's docstring is its name in the diagram. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from collabedit.common.blinding import Claim
from collabedit.common.watched import LayerNumbers
from collabedit.server.claims import Decision, Rule, Verdict
from collabedit.server.rounds import LayerWeights

# Why each of some clients is out, by client id.
Reasons = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happens to a round at a time (Unix seconds)."""

    at: float


@dataclass(frozen=True, kw_only=True)
class Enter(Event):
    """a client enters"""

    client: str
    edits: int
    claims: tuple[Claim, ...] | None = None  # None: nothing has to be settled before its edits are merged


@dataclass(frozen=True, kw_only=True)
class Settle(Event):
    """what parties claim is settled"""

    rule: Rule


@dataclass(frozen=True, kw_only=True)
class Report(Event):
    """a client tells how its merged edits do"""

    client: str
    tested: int = 0
    held: int = 0
    failed: tuple[Claim, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Judge(Event):
    """edits that failed are compared"""

    rule: Rule


@dataclass(frozen=True, kw_only=True)
class Decide(Event):
    """an admin decides a conflict"""

    decision: Decision
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, kw_only=True)
class Contribute(Event):
    """a contribution counts"""

    client: str
    attempt: int
    layer: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class Drop(Event):
    """a member is lost in the first layer"""

    reasons: Reasons
    left: bool = False  # of their own will, or shut out: not to come back into this round


@dataclass(frozen=True, kw_only=True)
class Restart(Event):
    """a member, or a merged layer's file, is lost after the first layer has closed, and all layers start again"""

    reasons: Reasons


@dataclass(frozen=True, kw_only=True)
class Damaged(Event):
    """contributions are found damaged on the server's disk, and are asked for again"""

    clients: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Complete(Event):
    """every contribution is there, or the deadline has come with a quorum"""

    late: Reasons


@dataclass(frozen=True, kw_only=True)
class TooFew(Event):
    """no quorum"""

    reasons: Reasons
    reason: str


@dataclass(frozen=True, kw_only=True)
class LayerMerged(Event):
    """a layer is merged"""

    merged: tuple[LayerWeights, ...]
    numbers: tuple[LayerNumbers, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LastLayerMerged(Event):
    """the last layer is merged"""

    merged: tuple[LayerWeights, ...]
    numbers: tuple[LayerNumbers, ...] = ()


@dataclass(frozen=True, kw_only=True)
class NotPositiveDefinite(Event):
    """C + ΣS is not positive definite"""

    reason: str
    numbers: tuple[LayerNumbers, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Abort(Event):
    """an admin aborts"""

    reason: str
    numbers: tuple[LayerNumbers, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RollBack(Event):
    """an admin brings an earlier version back"""

    to: int
    merged: tuple[LayerWeights, ...]
    reason: str
