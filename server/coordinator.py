"""What the services ask of the rounds: calls become decisions for the keeper, a layer that is complete becomes a merge.

Whatever phase a restart finds, it goes on from there: a round that was merging is merged again, to the same bits.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import structlog

from collabedit.common.blinding import Claim
from collabedit.common.errors import StateError
from collabedit.server.asked import (
    aborting,
    contributing,
    deciding,
    dropping,
    entering,
    leaving,
    losing_blobs,
    reporting,
    rolling_back,
)
from collabedit.server.clock import Clocks
from collabedit.server.events import Event
from collabedit.server.keeper import Plan, RoundKeeper
from collabedit.server.merge_runs import MergeRun, Merges
from collabedit.server.policy import Policy
from collabedit.server.refusals import check_whole, no_conflict, no_version
from collabedit.server.rounds import LayerWeights, Phase, Round
from collabedit.server.store import Conflict, Store
from collabedit.server.sweeping import Sweeper
from collabedit.server.views import View

TICK = 0.25  # seconds between looks at what is due
RECORD_PAUSE = 5.0  # seconds until a merge is recorded again that the database did not take
LULL = 0.5  # seconds in which news that are no more than counts are gathered
CHECKS = 2  # contributions looked at side by side; each takes memory
LOG = structlog.get_logger()


class Coordinator:
    """The federation's rounds as the services see them. Made in, and used from, one event loop."""

    def __init__(
        self, store: Store, merges: Merges, plan: Plan, policy: Policy, *, clocks: Clocks | None = None
    ) -> None:
        self._store = store
        self._merges = merges
        self._policy = policy
        self._max_claims = plan.max_claims
        self._clocks = clocks or Clocks()
        self._keeper = RoundKeeper(store, plan, policy, self._clocks, after=self._after)
        self._sweeper = Sweeper(store, self._keeper.ask, merges, self._clocks.waits)
        self._checking = ThreadPoolExecutor(CHECKS, "check")
        self._run: MergeRun | None = None
        self._merge_task: asyncio.Task[None] | None = None

    # -------------------------------------------------------------------------------------------- life

    async def start(self) -> None:
        """Takes up the rounds where the store has them, and opens one where none is under way."""
        await self._keeper.start()
        for each in self._keeper.round.live:
            if await self._keeper.ask(self._revoked, each.client):  # and then came a kill, before it took effect here
                await self.drop(each.client, "revoked")
        if self._keeper.ended is not None:
            self._keeper.spawn(self._sweeper.sweep(self._keeper.ended.number))
        await self.settle()

    async def run(self) -> None:
        """Looks at what is due, again and again, until cancelled."""
        told = ""
        while True:
            await asyncio.sleep(TICK)
            try:
                await self.settle()
                told = ""
            except StateError as error:  # a full disk, a database that is away: said once, tried until it is over
                if error.what != told:
                    LOG.error("what was due cannot be recorded; trying again", why=error.what)
                told = error.what
            except Exception:
                LOG.exception("what was due could not be done; trying again")

    async def drain(self, seconds: float) -> bool:
        """Begins nothing more, and waits that long for a merge under way; False where it has not ended by then.

        Whoever waits for news is sent away with StoppingRefusal. Calls that change the round are still carried out.
        """
        await self._keeper.drain()
        given_up = self._run is not None and self._run.merging != self._keeper.round
        if self._merge_task is None or given_up:
            return True
        _, still = await asyncio.wait([self._merge_task], timeout=seconds)
        return not still

    async def stop(self) -> None:
        """Finishes what is being written; a merge under way is not waited for, and done again after a restart."""
        await self._keeper.stop()
        if self._run is not None:
            self._run.give_up()
        self._checking.shutdown(wait=False, cancel_futures=True)

    async def settle(self) -> None:
        """Does what is due now, and begins a merge that waits to be done."""
        if self._sweeper.due and self._run is None:  # nothing rests yet on what a merge has written
            self._keeper.spawn(self._sweeper.sweep())
        await self._keeper.change(lambda *_: None)

    def _after(self, changed: Round) -> None:
        """What a change of the round sets going: a merge, the end of one that counts no more, or tidying up."""
        if self._run is not None and self._run.merging != changed:
            self._run.give_up()
        if changed.phase.ended:
            self._keeper.spawn(self._sweeper.sweep(changed.number))
        elif changed.phase is Phase.MERGING and self._run is None:
            layers_of = partial(self._keeper.ask, self._store.version)
            self._run = MergeRun(self._merges, layers_of, changed, self._policy.round_deadline)
            self._merge_task = asyncio.get_running_loop().create_task(self._merge(self._run))

    # ------------------------------------------------------------------------------------------- calls

    def seen(self, client: str) -> None:
        """Notes that something of the client's has just arrived."""
        self._keeper.heard[client] = self._clocks.waits()

    def view(self) -> View:
        """The round under way."""
        return self._keeper.view()

    async def enter(
        self, client: str, number: int, base_version: int, edits: int, claims: tuple[Claim, ...] | None = None
    ) -> View:
        """Takes the client into the round. Raises StaleRoundRefusal, StaleVersionRefusal, DamagedRefusal.

        claims: None where nothing has to be settled before a round merges.
        """
        latest = self._keeper.latest
        if latest is not None:
            check_whole(latest.number, await self._lacking(latest.merged))
        await self._keeper.change(entering(client, number, base_version, edits, claims, self._max_claims))
        return self._keeper.view_of(number)

    async def contribute(self, client: str, number: int, attempt: int, layer: int, digest: str) -> View:
        """Counts a blob as the client's contribution. Raises StaleRoundRefusal, CountedRefusal, ContributionError."""
        decide = contributing(client, number, attempt, layer, digest)
        now = self._keeper.round
        if (now.number, now.attempt, now.layer) != (number, attempt, layer):
            counted = await self._keeper.ask(self._store.contribution, number, attempt, layer, client)
            if counted == digest:
                return self._keeper.view_of(number)
        if decide(now, self._clocks.wall()) is not None:
            self._keeper.heard[client] = math.inf  # its contribution is being looked at: it waits for the server
            checking = partial(self._merges.check, now, client, digest)
            try:
                await asyncio.get_running_loop().run_in_executor(self._checking, checking)
            finally:
                self.seen(client)
            await self._keeper.change(decide)
        return self._keeper.view_of(number)

    async def report(
        self, client: str, number: int, version: int, tested: int, held: int, failed: tuple[Claim, ...]
    ) -> View:
        """Notes how the client's merged edits do. Raises StaleRoundRefusal, StaleVersionRefusal."""
        if number != self._keeper.round.number and await self._keeper.ask(self._store.reported, client, number):
            return self._keeper.view_of(number)
        await self._keeper.change(reporting(client, number, version, tested, held, failed, self._max_claims))
        return self._keeper.view_of(number)

    async def decide(self, slot: bytes, keep: str) -> Conflict:
        """Keeps one party's facts of a slot; done again it changes nothing. Returns the conflict as it is then.

        Raises NotFoundRefusal for a slot without a conflict, and as `deciding` does.
        """

        def found() -> Conflict:
            conflict = self._store.conflict(slot)
            if conflict is None:
                raise no_conflict()
            return conflict

        await self._keeper.change_knowing(lambda: deciding(found(), keep, self._store.decisions().get(slot)))
        return await self._keeper.ask(found)

    async def leave(self, client: str, number: int, reason: str) -> View:
        """Takes the client out of the round; a merge under way is given up. Nothing where it is out of it already.

        Raises StaleRoundRefusal for a round that has ended with the client in it.
        """
        if number != self._keeper.round.number:
            past = await self._keeper.ask(self._store.round, number)
            member = past and past.member(client)
            if member and not member.status.live:
                return self._keeper.view_of(number)
        await self._keeper.change(leaving(client, number, reason))
        return self._keeper.view_of(number)

    async def drop(self, client: str, reason: str) -> None:
        """Takes a client out of the round under way, if it is in it; a merge under way is given up."""
        await self._keeper.change(dropping(client, reason))

    async def damaged(self, digest: str) -> None:
        """A file of this digest was found damaged: what the round under way lost with it is asked for again."""
        await self._keeper.change(losing_blobs({digest}))

    async def abort(self, reason: str, number: int = 0) -> View:
        """Ends the round `number`, 0: the one under way; done again it changes nothing. Raises StaleRoundRefusal."""
        number = number or self._keeper.round.number
        if number != self._keeper.round.number:
            past = await self._keeper.ask(self._store.round, number)
            if past and past.phase is Phase.ABORTED:
                return self._keeper.view_of(number)
        await self._keeper.change(aborting(number, reason))
        return self._keeper.view_of(number)

    async def roll_back(self, to: int, expected: int, reason: str) -> int:
        """Publishes the weights of version `to` as a new version, which is returned; asked again, the same one.

        expected: the newest version as the caller knows it. Raises NotFoundRefusal where nothing was published as
        `to`, DamagedRefusal where a file of it is lost, and as `rolling_back` does.
        """
        layers = await self._keeper.ask(self._store.version, to)
        lacking = await self._lacking(layers or ())

        def once(round_: Round, now: float) -> Event | None:
            last = self._keeper.latest
            if last is not None and (last.restores, last.base_version) == (to, expected):
                return None
            if layers is None or to in self._keeper.pruned:  # which it may be since its layers were read
                raise no_version(to, to in self._keeper.pruned)
            check_whole(to, lacking)
            return rolling_back(to, tuple(layers), expected, reason)(round_, now)

        await self._keeper.change(once)
        return self._keeper.latest_version

    async def wait(self, client: str, revision: int, timeout: float) -> View:
        """The round's state once its revision is greater, mere counts up to LULL later; or after `timeout` seconds.

        A caller that has not seen how the last round ended is told that first, and the round under way next.
        """
        patience = min(timeout, self._policy.liveness / 3)  # an answer in time is what tells that the client lives
        await self._keeper.change_after(revision, patience, LULL)
        self.seen(client)
        return self._keeper.news(revision)

    async def until(self, holds: Callable[[Round], bool], timeout: float) -> bool:
        """Whether something has come to hold of the round under way within `timeout` seconds."""
        return await self._keeper.until(lambda now: holds(now.round), timeout)

    def _revoked(self, client: str) -> bool:
        known = self._store.client(client)
        return known is not None and (known.revoked or self._store.serial_revoked(known.serial))

    # ------------------------------------------------------------------------------------- heavy work

    async def _lacking(self, layers: Sequence[LayerWeights]) -> list[str]:
        """The weights, of a version's layers, of which a file is damaged or gone."""
        return await asyncio.to_thread(self._merges.lacking, layers)

    async def _merge(self, run: MergeRun) -> None:
        event = await run.outcome(self._clocks.wall())

        def decide(round_: Round, now: float) -> Event | None:
            self._run = None
            return replace(event, at=now) if round_ == run.merging else None

        while True:
            try:
                return await self._keeper.change(decide)
            except StateError as error:
                LOG.error("what the merge brought cannot be recorded yet", number=run.merging.number, why=error.what)
                self._run = run
                await asyncio.sleep(RECORD_PAUSE)
            except Exception:
                self._run = None
                LOG.exception(
                    "what the merge brought could not be recorded; it is done again", number=run.merging.number
                )
                return None
