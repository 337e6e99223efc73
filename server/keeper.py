"""The round under way, kept: every change is decided under one lock, and recorded before anybody is told.

One thread writes. Whatever phase a restart finds, it goes on from there. Waits go by the server's own clock, the wall
clock is only recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import structlog

from collabedit.common.errors import StateError
from collabedit.server.asked import Decision
from collabedit.server.claims import MOST_CLAIMS
from collabedit.server.clock import Clocks
from collabedit.server.decided import Decided
from collabedit.server.events import Decide, Event
from collabedit.server.policy import Policy, Waits, next_event, wait_ends
from collabedit.server.refusals import StoppingRefusal
from collabedit.server.round_log import log_change
from collabedit.server.rounds import Phase, Round, only_counts
from collabedit.server.store import Recorded, Store
from collabedit.server.transitions import advance
from collabedit.server.views import View

LOG = structlog.get_logger()
CLOSING = 1.0  # seconds that small work gets to end when the server stops

Result = TypeVar("Result")


@dataclass(frozen=True)
class Plan:
    """What new rounds are made with: the weights that each exchange carries, and the least number of contributions.

    keep_versions: how many of the versions that they publish are kept; 0: all. expects: whether who has merged edits is
    to tell in the next round which of them failed. max_claims: facts that one client may claim in one round.
    """

    exchanges: tuple[tuple[str, ...], ...]
    quorum: int
    keep_versions: int = 0
    expects: bool = False
    max_claims: int = MOST_CLAIMS


class RoundKeeper:
    """The federation's rounds, one after the other. Made in, and used from, one event loop.

    heard: when each client was last heard of, by client id, on the clock of waits. pruned: versions kept no
    longer. after(round): called under the lock when a round has ended, and with the one under way whenever somebody has
    looked at what is due.
    """

    def __init__(
        self,
        store: Store,
        plan: Plan,
        policy: Policy,
        clocks: Clocks,
        *,
        after: Callable[[Round], None],
    ) -> None:
        self.heard: dict[str, float] = {}
        self.pruned: frozenset[int] = frozenset()
        self._store = store
        self._plan = plan
        self._policy = policy
        self._clocks = clocks
        self._after = after
        self._waits = Waits(clocks.waits(), self.heard)
        self._stopping = False
        self._lock = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._thread = ThreadPoolExecutor(1, "store")
        self._tasks: set[asyncio.Task[Any]] = set()
        self._current: Recorded
        self._turned = 0  # the revision of the last change that was more than a count
        self._ended: Recorded | None = None
        self._latest: Round | None = None  # the last one published
        self._decided = Decided(store, self.ask)

    async def start(self) -> None:
        """Takes up the rounds where the store has them, and opens one where none is under way."""
        self._latest = await self.ask(self._store.round, await self.ask(self._store.latest_version))
        await self._prune()
        await self._catch_up()
        recorded = await self.ask(self._store.rounds, 2)
        self._ended = next((each for each in recorded if each.round.phase.ended), None)
        found = await self.ask(self._store.latest_round)
        if found is not None and not found.round.phase.ended:
            self._take(found)
            await self._requorum()
        else:
            await self._open()
        LOG.info("round", number=self._current.round.number, phase=self._current.round.phase.value)

    async def stop(self) -> None:
        """Finishes what is being written; tidying up that takes longer is for the next start."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=CLOSING)
        await asyncio.to_thread(self._thread.shutdown)

    async def drain(self) -> None:
        """From now on no round opens, no time runs out, no merge begins; who waits for news is sent away."""
        self._stopping = True
        async with self._changed:
            self._changed.notify_all()

    # ------------------------------------------------------------------------------------------- reading

    @property
    def round(self) -> Round:
        """The round under way."""
        return self._current.round

    @property
    def ended(self) -> Round | None:
        """The round that ended last."""
        return self._ended.round if self._ended else None

    @property
    def latest(self) -> Round | None:
        """The round that published the newest version."""
        return self._latest

    @property
    def latest_version(self) -> int:
        """The newest version."""
        return self._latest.number if self._latest else 0

    def view(self) -> View:
        """The round under way."""
        return self._view(self._current)

    def view_of(self, number: int) -> View:
        """The round named where it is the one that ended last; else the one under way."""
        if self._ended is not None and self._ended.round.number == number:
            return self._view(self._ended)
        return self.view()

    def news(self, revision: int) -> View:
        """What a caller that has seen `revision` is told: how the last round ended, before the one under way."""
        if self._ended is not None and self._ended.revision > revision:
            return self._view(self._ended)
        return self.view()

    async def until(self, holds: Callable[[Recorded], bool], timeout: float) -> bool:
        """Whether something holds of the round under way, within `timeout` seconds. Raises StoppingRefusal."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(lambda: self._stopping or holds(self._current))
        if self._stopping:
            raise StoppingRefusal
        return holds(self._current)

    async def change_after(self, revision: int, timeout: float, lull: float) -> None:
        """Returns once the round has changed since `revision`, or after `timeout` seconds. Raises StoppingRefusal.

        What is no more than counts is told with what else comes within `lull` seconds: each of n members that enters or
        contributes would otherwise wake all the others, which ask again.
        """
        ends = asyncio.get_running_loop().time() + timeout
        if await self.until(lambda now: now.revision > revision, timeout):
            left = ends - asyncio.get_running_loop().time()
            await self.until(lambda _: self._turned > revision, min(lull, left))

    def _take(self, recorded: Recorded) -> None:
        before = getattr(self, "_current", None)
        if before is None or not only_counts(before.round, recorded.round):
            self._turned = recorded.revision
        self._current = recorded

    def _view(self, recorded: Recorded) -> View:
        ends = wait_ends(recorded.round, self._policy, self._waits)
        left = None if ends is None else ends - self._clocks.waits()
        restores = self._latest.restores if self._latest else None
        known = not self._decided.behind or not recorded.round.verdicts
        return View(
            recorded.round, recorded.revision, self.latest_version, left, restores, self._decided.verdicts,
            settled=recorded.round.settled and known,
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------ changing

    async def ask(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """What a method of the store returns, called in the thread that writes."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(function, *arguments))

    async def change(self, decide: Decision) -> None:
        """Lets `decide` make an event of the round, under the lock, and applies it; then what is due.

        A caller that goes away does not stop it half-way.
        """

        async def at_hand() -> Decision:
            return decide

        await asyncio.shield(self.spawn(self._changing(at_hand)))

    async def change_knowing(self, asking: Callable[[], Decision]) -> None:
        """`change`, by what the store is asked for under the lock: what the decision rests on is still so."""
        await asyncio.shield(self.spawn(self._changing(partial(self.ask, asking))))

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Work that `stop` waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _changing(self, deciding: Callable[[], Awaitable[Decision]]) -> None:
        async with self._lock:
            if self._current.round.phase.ended:  # opening the next one failed, or was left to the next start
                await self._open()
            if self._decided.behind:
                await self._catch_up()
            decide = await deciding()
            event = decide(self._current.round, self._clocks.wall()) or self._due()
            while event is not None:
                await self._apply(event)
                event = self._due()
            if not self._stopping:
                self._after(self._current.round)

    def _due(self) -> Event | None:
        if self._stopping:
            return None
        due = next_event(self._current.round, self._clocks.waits(), self._policy, self._waits)
        return due and replace(due, at=self._clocks.wall())

    async def _apply(self, event: Event) -> None:
        before = self._current.round
        changed = await self.ask(advance, before, event)  # to compare many claims takes a while
        recorded = Recorded(changed, await self.ask(self._store.record, changed))
        decided = isinstance(event, Decide)
        try:  # a client that sees claims settled goes by the verdicts that it is told of at that moment
            if decided or len(changed.verdicts) != len(before.verdicts) or changed.version is not None:
                await self._catch_up(decisions=decided)
        finally:
            self._take(recorded)
        self._waits = self._waits.after(before, changed, self._clocks.waits())
        log_change(event, before, changed)
        if changed.phase.ended:
            self._latest = changed if changed.version is not None else self._latest
            self._ended = self._current
            if changed.version is not None:
                await self._prune()
            if not self._stopping:
                await self._open()
            self._after(changed)
        async with self._changed:
            self._changed.notify_all()

    async def _open(self) -> None:
        """The next round, on the latest version. Raises StoppingRefusal once the server stops."""
        if self._stopping:
            raise StoppingRefusal
        number = self._ended.round.number + 1 if self._ended else 1
        plan, expected = self._plan, await self._expected()
        opened = Round(
            number, self.latest_version, plan.exchanges, plan.quorum, self._clocks.wall(), expected=expected
        )  # fmt: skip
        self._take(Recorded(opened, await self.ask(self._store.record, opened)))

    async def _expected(self) -> tuple[str, ...]:
        """Who has merged the edits that the latest version was made of, in the order in which they entered."""
        merged = self._latest
        while self._plan.expects and merged is not None and merged.restores is not None:
            merged = await self.ask(self._store.round, merged.restores)
        if not self._plan.expects or merged is None:
            return ()
        return tuple(each.client for each in sorted(merged.contributed, key=lambda each: each.place))

    async def _catch_up(self, *, decisions: bool = True) -> None:
        """Reads what was decided; where that fails, before the next change."""
        await self._decided.read(decisions=decisions)
        self._policy = replace(self._policy, rule=replace(self._policy.rule, decisions=self._decided.decisions))

    async def _prune(self) -> None:
        """Gives up older versions, under the lock that decides a rollback; where that fails, the next round does."""
        try:
            if self._plan.keep_versions:
                await self.ask(self._store.prune, self._plan.keep_versions)
            self.pruned = await self.ask(self._store.pruned)
        except StateError as error:
            LOG.error("older versions could not be pruned", why=error.what)

    async def _requorum(self) -> None:
        """A round found waiting goes on with the quorum that the server is started with now."""
        found = self._current.round
        if found.phase is not Phase.MERGING and found.quorum != self._plan.quorum:
            changed = replace(found, quorum=self._plan.quorum)
            self._take(Recorded(changed, await self.ask(self._store.record, changed)))
