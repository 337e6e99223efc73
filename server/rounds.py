"""A round as a value: its phase, its members, the layers that it has merged. Pure.

What may happen to it is in `collabedit.server.events`, what it leads to in `collabedit.server.transitions`, and when
something is due in `collabedit.server.policy`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from collabedit.common.blinding import Claim
from collabedit.common.watched import LayerNumbers
from collabedit.server.claims import Decision, Party, Verdict


class Phase(Enum):
    """Where a round is."""

    OPEN = "open"
    COLLECTING = "collecting"
    MERGING = "merging"
    PUBLISHED = "published"
    NO_QUORUM = "no-quorum"
    ABORTED = "aborted"

    @property
    def ended(self) -> bool:
        """Nothing happens after it any more."""
        return self in (Phase.PUBLISHED, Phase.NO_QUORUM, Phase.ABORTED)


class Status(Enum):
    """Where a member of a round stands, with respect to the layer being collected.

    OUT: it was lost or late; while the first layer is open it may enter again. LEFT: it went itself, or was shut out,
    while the first layer was open; the round does not take it in again.
    """

    ENTERED = "entered"
    CONTRIBUTED = "contributed"
    OUT = "out"
    LEFT = "left"

    @property
    def live(self) -> bool:
        """Still in the round."""
        return self in (Status.ENTERED, Status.CONTRIBUTED)


@dataclass(frozen=True)
class Member:
    """A client in a round. `digest` is its contribution to the layer being collected; `reason` says why it is out.

    edits: that it will contribute, less those that were judged out. place: in receipt order, from 1. claims: one for
    each edit, in the order of their names; out: those judged out; judged: they have been compared with the others', or
    need not be. An ended round is without them: the store tells them. claimed: how many different facts it has claimed
    in the round, in all its entries.
    """

    client: str
    edits: int
    status: Status = Status.ENTERED
    reason: str = ""
    digest: str = ""
    place: int = 0
    judged: bool = True
    claims: tuple[Claim, ...] = ()
    out: tuple[Claim, ...] = ()
    claimed: int = 0

    @property
    def party(self) -> Party:
        """What it claims."""
        return Party(self.client, self.claims)


@dataclass(frozen=True)
class Told:
    """How a client's merged edits do on the version that the round stands on.

    tested, held: edits scored, and those of them that hold. failed: claims of those that did not take or hold. at: when
    it told, Unix seconds.
    """

    client: str
    at: float
    tested: int = 0
    held: int = 0
    failed: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class Past:
    """The accumulated ΣKKᵀ of a layer: content addresses of pieces whose sum it is (`collabedit.common.accumulated`).

    released: what clients may read; withheld: what has been contributed since by `party` alone, which they may not.
    """

    released: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()
    party: str = ""


@dataclass(frozen=True)
class LayerWeights:
    """New weights of one layer: content addresses of the weight and of the ΣKKᵀ that has accumulated with it."""

    weight: str
    digest: str
    past: Past = Past()

    @property
    def digests(self) -> tuple[str, ...]:
        """Of all its files."""
        return (self.digest, *self.past.released, *self.past.withheld)


@dataclass(frozen=True)
class Round:
    """One round, whole. Members stand in the order of their client ids, so that a merge always sums in one order.

    exchanges: the weights that each exchange carries: one each in layer-sync, all at once in one-shot.
    merged: the layers merged in this attempt, in the order of the exchanges; of a rollback, those of the version
    that it brought back, which is `restores` (None: the round is no rollback). numbers: of the layers merged in this
    attempt, also of a round that came to nothing then.
    opened, entered (the first Enter), since (collecting of the present layer began), ended: Unix seconds.

    expected: who is to tell how its merged edits do, in the order in which they entered the round that merged them.
    told: what was told, in receipt order; compared: when the claims in it were (Unix seconds). verdicts: given in this
    round. decisions: that admins took in it. These and claims are of a round under way; the store tells those of ended
    ones.
    """

    number: int
    base_version: int
    exchanges: tuple[tuple[str, ...], ...]
    quorum: int
    opened: float
    phase: Phase = Phase.OPEN
    attempt: int = 0
    layer: int = 0
    members: tuple[Member, ...] = ()
    merged: tuple[LayerWeights, ...] = ()
    entered: float | None = None
    since: float | None = None
    ended: float | None = None
    reason: str = ""
    restores: int | None = None
    numbers: tuple[LayerNumbers, ...] = ()
    expected: tuple[str, ...] = ()
    told: tuple[Told, ...] = ()
    compared: float | None = None
    verdicts: tuple[Verdict, ...] = ()
    decisions: tuple[Decision, ...] = ()

    def member(self, client: str) -> Member | None:
        """The client's membership; None where it never entered."""
        return next((each for each in self.members if each.client == client), None)

    @property
    def live(self) -> tuple[Member, ...]:
        """Members that are still in the round."""
        return tuple(each for each in self.members if each.status.live)

    @property
    def contributed(self) -> tuple[Member, ...]:
        """Members whose contribution to the layer being collected counts, in the order of the merge."""
        return tuple(each for each in self.members if each.status is Status.CONTRIBUTED)

    @property
    def unsettled(self) -> tuple[Member, ...]:
        """Live members whose claims have yet to be compared with the others', in receipt order."""
        return tuple(each for each in self.by_receipt if not each.judged)

    @property
    def settled(self) -> bool:
        """The claims of all who are in it have been compared, where they are: contributions are taken."""
        return all(each.judged for each in self.live)

    @property
    def by_receipt(self) -> tuple[Member, ...]:
        """Live members in the order in which they entered."""
        return tuple(sorted(self.live, key=lambda each: each.place))

    @property
    def by_merge(self) -> tuple[Told, ...]:
        """What was told, in the order in which the clients entered the round that merged it, as far as known."""
        rank = {client: place for place, client in enumerate(self.expected)}
        return tuple(sorted(self.told, key=lambda each: rank.get(each.client, len(rank))))

    @property
    def fixed(self) -> bool:
        """The first layer has closed once: nobody enters any more."""
        return self.attempt > 0 or self.layer > 0 or self.phase not in (Phase.OPEN, Phase.COLLECTING)

    @property
    def last_layer(self) -> bool:
        """The layer being collected or merged is the last one."""
        return self.layer == len(self.exchanges) - 1

    @property
    def version(self) -> int | None:
        """The version of the model that the round published, if it did."""
        return self.number if self.phase is Phase.PUBLISHED else None


def claimed(member: Member | None, claims: Iterable[Claim]) -> int:
    """`Member.claimed` of a client that enters with these claims; member: what it was in the round before."""
    return len(set(claims) - set(member.claims)) + member.claimed if member else len(set(claims))


def told_and_gone(was: Mapping[str, Status], now: Round) -> Mapping[str, int]:
    """Who is out since, was told what others edit, and has contributed nothing: of how many of its claims, by client.

    was: the members' statuses before. A client that guesses does so; and one to which verdicts leave too few edits.
    """
    if now.attempt > 0 or now.layer > 0:  # whoever was in it has contributed
        return {}
    gone = (each for each in now.members if not each.status.live and was.get(each.client) is Status.ENTERED)
    return {each.client: len(each.out) for each in gone if each.out}


def only_counts(before: Round, now: Round) -> bool:
    """Whether a change brought nothing but further members, contributions and reports.

    It concerns the client whose call it was, which has its answer; to the others it is two numbers.
    """
    if now.settled and not before.settled:
        return False
    was, is_ = ({each.client: _RANK.get(each.status, 0) for each in round_.members} for round_ in (before, now))
    return replace(now, members=before.members, told=before.told) == before and all(
        is_.get(each, 0) >= was[each] for each in was
    )


_RANK: Final = {Status.ENTERED: 1, Status.CONTRIBUTED: 2}  # of those who are in it
