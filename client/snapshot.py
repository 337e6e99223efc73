"""The round as this client sees it: values, no protocol messages. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from collabedit.client.edit_life import VerdictKind
from collabedit.common.blinding import Claim


class Phase(Enum):
    """Where a round stands (the protocol's Phase)."""

    OPEN = 1
    COLLECTING = 2
    MERGING = 3
    PUBLISHED = 4
    NO_QUORUM = 5
    ABORTED = 6


class Membership(Enum):
    """Where this client stands in a round (the protocol's MemberStatus)."""

    ABSENT = 1
    ENTERED = 2
    CONTRIBUTED = 3
    OUT = 4


ENDED: Final = frozenset({Phase.PUBLISHED, Phase.NO_QUORUM, Phase.ABORTED})


@dataclass(frozen=True)
class LayerVersion:
    """Where the new weights of one layer are: content addresses.

    kkt_digests: of pieces whose sum is the accumulated ΣS; kkt_withheld: the next round's C holds more than that, which
    no client is told.
    """

    weight: str
    digest: str
    kkt_digests: tuple[str, ...] = ()
    kkt_withheld: bool = False


@dataclass(frozen=True)
class Version:
    """A published version: 0 is the base model and has no layers."""

    version: int
    layers: tuple[LayerVersion, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What was decided about a claim of ours. number: the federation's, growing; round: the one it was given in."""

    number: int
    round: int
    claim: Claim
    kind: VerdictKind
    policy: str = ""


@dataclass(frozen=True)
class Snapshot:
    """One answer of the server about the round under way; a later one has a greater `revision`.

    settled: contributions are taken, as far as claims go; a release that knows no claims never says so. newest_verdict:
    number of the last one about a claim of ours, 0: none.
    """

    round: int
    phase: Phase
    revision: int
    base_version: int
    member: Membership = Membership.ABSENT
    attempt: int = 0
    layer: int = 0
    merged: tuple[LayerVersion, ...] = ()
    member_reason: str = ""
    members: int = 0
    contributed: int = 0
    quorum: int = 1
    seconds_left: int = 0
    reason: str = ""
    latest_version: int = 0
    settled: bool = True
    newest_verdict: int = 0

    @property
    def ended(self) -> bool:
        """Whether nothing can happen in this round any more."""
        return self.phase in ENDED

    @property
    def collects(self) -> bool:
        """Whether contributions and reports are taken, by the phase."""
        return self.phase in (Phase.OPEN, Phase.COLLECTING)

    @property
    def takes_members(self) -> bool:
        """Whether a client may still enter: until the first layer of the first attempt is merged."""
        return self.collects and self.layer == 0 and self.attempt == 0

    @property
    def stands_on(self) -> int:
        """The version whose weights a client must hold to be in step."""
        return self.latest_version if self.ended else self.base_version


def reasons(*given: str) -> str:
    """Why a round ended and why it ended for us, in one line, each said once."""
    return "; ".join(dict.fromkeys(each for each in given if each))


@dataclass(frozen=True)
class Outcome:
    """How a round ended for this client."""

    round: int
    phase: Phase
    member: Membership
    version: int
    reason: str = ""

    @property
    def merged(self) -> bool:
        """Whether this client's edits are in the published weights."""
        return self.phase is Phase.PUBLISHED and self.member is Membership.CONTRIBUTED
