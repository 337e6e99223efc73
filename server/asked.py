"""What a party's call asks of the round: an event, nothing where it has happened already, or a refusal. Pure."""

from __future__ import annotations

from collections.abc import Callable, Set

from collabedit.common.blinding import Claim
from collabedit.server.claims import MOST_CLAIMS, decided
from collabedit.server.claims import Decision as Kept
from collabedit.server.events import Abort, Contribute, Damaged, Decide, Enter, Event, Report, Restart, RollBack
from collabedit.server.policy import losing
from collabedit.server.refusals import BadRequestRefusal, CountedRefusal, StaleRoundRefusal, StaleVersionRefusal
from collabedit.server.rounds import LayerWeights, Phase, Round, Status, claimed
from collabedit.server.store import Conflict

# (the round, now) -> what happens to it.
Decision = Callable[[Round, float], Event | None]

ASK = "ask for its state"


def entering(
    client: str,
    number: int,
    base_version: int,
    edits: int,
    claims: tuple[Claim, ...] | None = None,
    most: int = MOST_CLAIMS,
) -> Decision:
    """The client takes part in the round `number`. The decision raises StaleRoundRefusal, StaleVersionRefusal.

    claims: None where nothing has to be settled before a round merges. most: facts that a client may claim in one
    round; BadRequestRefusal for more, also where it comes back with others.
    """

    def decide(present: Round, now: float) -> Event | None:
        _require_number(present, number)
        member = present.member(client)
        if member is not None and member.status.live:
            return None
        if base_version != present.base_version:
            what = f"round {number} stands on version {present.base_version}, {client} holds version {base_version}"
            raise StaleVersionRefusal(what, mend="fetch that version's weights, then enter")
        if present.fixed:
            what = f"round {number} takes no more members since its first layer closed"
            raise StaleRoundRefusal(what, mend="wait for the next round")
        if member is not None and member.status is Status.LEFT:
            raise StaleRoundRefusal(f"{client} left round {number}: {member.reason}", mend="wait for the next round")
        _require_few(client, number, claimed(member, claims or ()), most)
        return Enter(client=client, edits=edits, claims=claims, at=now)

    return decide


def contributing(client: str, number: int, attempt: int, layer: int, digest: str) -> Decision:
    """A blob counts as the client's part of a layer. The decision raises StaleRoundRefusal, CountedRefusal."""

    def decide(present: Round, now: float) -> Event | None:
        _require_number(present, number)
        if (attempt, layer) != (present.attempt, present.layer):
            here = f"layer {present.layer} of attempt {present.attempt}"
            raise StaleRoundRefusal(f"round {number} collects {here}, not {layer} of {attempt}", mend=ASK)
        if _counts(present, client, digest):
            return None
        _require_owed(present, client)
        if not present.settled:
            raise StaleRoundRefusal(f"round {number} is not settled yet", mend="wait until its state says so")
        return Contribute(client=client, attempt=attempt, layer=layer, digest=digest, at=now)

    return decide


def reporting(
    client: str,
    number: int,
    version: int,
    tested: int,
    held: int,
    failed: tuple[Claim, ...],
    most: int = MOST_CLAIMS,
) -> Decision:
    """The client tells how its merged edits do. The decision raises StaleRoundRefusal, StaleVersionRefusal.

    most: facts that a client may claim in one round; BadRequestRefusal for more.
    """

    def decide(present: Round, now: float) -> Event | None:
        _require_number(present, number)
        if any(each.client == client for each in present.told):
            return None
        if present.phase is Phase.MERGING:
            raise StaleRoundRefusal(f"round {number} is merging", mend="report when the layer is merged")
        if version != present.base_version:
            what = f"round {number} stands on version {present.base_version}, {client} tells of version {version}"
            raise StaleVersionRefusal(what, mend="score the edits on that version's weights")
        _require_few(client, number, len(set(failed)), most)
        return Report(client=client, tested=tested, held=held, failed=failed, at=now)

    return decide


def deciding(conflict: Conflict, keep: str, known: Kept | None) -> Decision:
    """Of a conflict one party's facts are kept; known: what was decided about its slot until now.

    The decision raises BadRequestRefusal for who is no party to it, StaleRoundRefusal while a layer is merged.
    """
    facts = tuple(each.fact for each in conflict.claimants if each.client == keep)
    decision = Kept(conflict.slot, keep, facts)
    verdicts = decided([(each.client, each.fact, each.kind) for each in conflict.claimants], decision)

    def decide(present: Round, now: float) -> Event | None:
        if not facts:
            parties = ", ".join(dict.fromkeys(each.client for each in conflict.claimants))
            raise BadRequestRefusal(f'"{keep[:64]}" is no party to that conflict', mend=f"keep one of: {parties}")
        if decision in present.decisions or (decision == known and not verdicts):
            return None
        if present.phase is Phase.MERGING:
            raise StaleRoundRefusal(f"round {present.number} is merging", mend="try again when the layer is merged")
        return Decide(decision=decision, verdicts=verdicts, at=now)

    return decide


def leaving(client: str, number: int, reason: str) -> Decision:
    """The client is out of the round `number`, with a reason: nothing of its own counts in it any more.

    A merge under way is given up. Nothing where it left already. The decision raises StaleRoundRefusal.
    """

    def decide(present: Round, now: float) -> Event | None:
        _require_number(present, number)
        if present.member(client) is None:
            raise StaleRoundRefusal(f"{client} is not in round {number}", mend=ASK)
        return dropping(client, reason)(present, now)

    return decide


def dropping(client: str, reason: str) -> Decision:
    """The client is out of the round under way, whichever it is; nothing where it is not in it."""

    def decide(present: Round, now: float) -> Event | None:
        member = present.member(client)
        if member is None or (not member.status.live and (present.fixed or member.status is Status.LEFT)):
            return None
        return losing(present, {client: reason}, now, left=True)

    return decide


def losing_blobs(digests: Set[str]) -> Decision:
    """What follows where files are found damaged: contributions to the layer under way are asked for again.

    Where a layer that the round has merged is among them, all layers start again. Nothing where the round under way
    does not rest on any of them.
    """

    def decide(present: Round, now: float) -> Event | None:
        if present.phase not in (Phase.COLLECTING, Phase.MERGING):
            return None
        if any(each.digest in digests for each in present.merged):
            return Restart(reasons={}, at=now)
        clients = tuple(each.client for each in present.contributed if each.digest in digests)
        return Damaged(clients=clients, at=now) if clients else None

    return decide


def aborting(number: int, reason: str) -> Decision:
    """The round `number` ends. The decision raises StaleRoundRefusal where another one is under way."""

    def decide(present: Round, now: float) -> Event | None:
        _require_number(present, number)
        return Abort(reason=reason, at=now)

    return decide


def rolling_back(to: int, layers: tuple[LayerWeights, ...], expected: int, reason: str) -> Decision:
    """Version `to`, whose layers these are, becomes the newest one; who is in the round is out of it.

    expected: the newest version as the caller knows it. The decision raises StaleVersionRefusal where it is another,
    StaleRoundRefusal while a layer is merged, BadRequestRefusal for the newest version itself.
    """

    def decide(present: Round, now: float) -> Event | None:
        if present.base_version != expected:
            what = f"the newest version is {present.base_version}, not {expected}"
            raise StaleVersionRefusal(what, mend="`collab rounds` shows what happened; then roll back from there")
        if to == expected:
            raise BadRequestRefusal(f"version {to} is the newest one: there is nothing to roll back")
        if present.phase is Phase.MERGING:
            raise StaleRoundRefusal(f"round {present.number} is merging", mend="try again when the layer is merged")
        return RollBack(to=to, merged=layers, reason=reason, at=now)

    return decide


def _require_number(present: Round, number: int) -> None:
    if present.number != number:
        raise StaleRoundRefusal(f"round {number} is not under way: round {present.number} is", mend=ASK)


def _require_few(client: str, number: int, facts: int, most: int) -> None:
    if facts > most:
        what = f"{client} claims {facts} facts in round {number}, and the server takes {most} of one client"
        raise BadRequestRefusal(what, mend="give the client fewer edits at once, or have --max-claims raised")


def _counts(present: Round, client: str, digest: str) -> bool:
    """Whether this very contribution counts already. Raises CountedRefusal where another one does."""
    member = present.member(client)
    if member is None or member.status is not Status.CONTRIBUTED:
        return False
    if member.digest != digest:
        raise CountedRefusal(
            f"another contribution of {client} to round {present.number}, layer {present.layer} counts already",
            mend="what counts is not replaced: go on with the round",
        )
    return True


def _require_owed(present: Round, client: str) -> None:
    member = present.member(client)
    if member is None or not member.status.live:
        why = f": {member.reason}" if member else ""
        raise StaleRoundRefusal(f"{client} is not in round {present.number}{why}", mend="enter the next round")
    if present.phase not in (Phase.OPEN, Phase.COLLECTING):
        raise StaleRoundRefusal(f"round {present.number} is {present.phase.value}", mend=ASK)
