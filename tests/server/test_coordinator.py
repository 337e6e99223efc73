"""The shell around the round, with a clock that the test turns and merges that the test lets happen."""

from __future__ import annotations

import asyncio
import errno
import shutil
import threading
from dataclasses import dataclass, field, replace

import pytest

from collabedit.common.blinding import Claim
from collabedit.common.errors import BadFileError, ContributionError, NotPositiveDefiniteError, StateError
from collabedit.common.watched import LayerNumbers
from collabedit.server import coordinator, merge_runs
from collabedit.server.claims import Kind, Rule
from collabedit.server.clock import Clocks
from collabedit.server.coordinator import Coordinator
from collabedit.server.database import migrate, open_engine, sqlite_url
from collabedit.server.keeper import Plan
from collabedit.server.merge_runs import LostContributionsError
from collabedit.server.policy import Policy
from collabedit.server.refusals import (
    BadRequestRefusal,
    CountedRefusal,
    NotFoundRefusal,
    StaleRoundRefusal,
    StaleVersionRefusal,
    StoppingRefusal,
)
from collabedit.server.rounds import LayerWeights, Phase, Round, Status
from collabedit.server.sql_store import SqlStore

POLICY = Policy(entry_window=0, round_deadline=100, layer_deadline=50, liveness=30)


class Clock:
    """Seconds that pass when the test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Wall(Clock):
    """The wall clock, which a person or a daemon sets."""

    now = 1.8e9


@dataclass
class FakeMerges:
    """Merges in name only; `held` keeps a merge waiting, `failure` makes it fail."""

    merged: list[tuple[int, int, int, tuple[str, ...]]] = field(default_factory=list)
    swept: set[str] = field(default_factory=set)
    sweeps: int = 0
    failure: Exception | None = None
    held: threading.Event | None = None
    numbers: tuple[LayerNumbers, ...] = ()

    def check(self, round_: Round, client: str, digest: str) -> None:
        if digest == "bad":
            raise ContributionError(f"{client}: bad")

    def merge(self, round_: Round, base, report) -> tuple[LayerWeights, ...]:
        for each in self.numbers:
            report(each)
        if self.held:
            self.held.wait(timeout=30)
        if self.failure:
            raise self.failure
        given = tuple(each.digest for each in round_.contributed)
        self.merged.append((round_.number, round_.attempt, round_.layer, given))
        return tuple(
            LayerWeights(weight, f"{len(base)}:{'+'.join(given)}") for weight in round_.exchanges[round_.layer]
        )

    def lacking(self, layers) -> list[str]:
        return []

    def sweep(self, needed, done_with) -> None:
        self.swept |= done_with - needed
        self.sweeps += 1


@dataclass
class World:
    """A coordinator over a store that outlives it."""

    folder: object
    quorum: int = 1
    policy: Policy = POLICY
    clock: Clock = field(default_factory=Clock)
    wall: Wall = field(default_factory=Wall)
    merges: FakeMerges = field(default_factory=FakeMerges)
    expects: bool = False

    async def start(self, wrapped=lambda store: store) -> Coordinator:
        engine = open_engine(sqlite_url(self.folder / "db"))
        plan = Plan((("a",), ("b",)), self.quorum, expects=self.expects)
        clocks = Clocks(self.wall, self.clock)
        self.it = Coordinator(wrapped(SqlStore(engine)), self.merges, plan, self.policy, clocks=clocks)
        await self.it.start()
        return self.it

    async def passes(self, seconds: float, *alive: str) -> None:
        self.clock.now += seconds
        for client in alive:
            self.it.seen(client)
        await self.it.settle()

    async def enter(self, *clients: str) -> None:
        round_ = self.it.view().round
        for client in clients:
            self.it.seen(client)
            await self.it.enter(client, round_.number, round_.base_version, 8)

    async def give(self, client: str, digest: str = ""):
        round_ = self.it.view().round
        told = digest or f"{client}{round_.attempt}{round_.layer}"
        return await self.it.contribute(client, round_.number, round_.attempt, round_.layer, told)

    async def publish(self, *clients: str) -> None:
        """The clients enter, in this order, and go through a whole round."""
        number = self.it.view().round.number
        await self.enter(*clients)
        for layer in (0, 1):
            await self.until(lambda now, layer=layer: now.layer == layer)
            for client in clients:
                await self.give(client)
        await self.next_round(number + 1)

    async def until(self, holds) -> None:
        assert await self.it.until(holds, 30)

    async def reached(self, layer: int, attempt: int = 0) -> None:
        await self.until(lambda now: (now.layer, now.attempt, now.phase) == (layer, attempt, Phase.COLLECTING))

    async def next_round(self, number: int) -> None:
        await self.until(lambda now: now.number == number)


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    """A database whose tables are up to date, to be copied."""
    file = tmp_path_factory.mktemp("empty") / "db"
    engine = open_engine(sqlite_url(file))
    migrate(engine)
    engine.dispose()
    return file


@pytest.fixture
def worlds(tmp_path, empty_database):
    """Makes federations of their own."""

    def make(name: str = "world", **settings) -> World:
        (tmp_path / name).mkdir()
        shutil.copyfile(empty_database, tmp_path / name / "db")
        return World(tmp_path / name, **settings)

    return make


@pytest.fixture
def world(worlds):
    """A federation."""
    return worlds()


def play(scenario) -> None:
    """Runs a scenario; one that hangs fails."""
    asyncio.run(asyncio.wait_for(scenario, 60))


def test_layers_are_merged_in_client_order_and_published_together(world):
    """Whatever the order of arrival, contributions are merged by client id; the next round stands on the version."""

    async def scenario():
        it = await world.start()
        await world.enter("chur", "arosa")
        await world.give("chur")
        assert (it.view().round.phase, it.view().latest_version) == (Phase.COLLECTING, 0)
        await world.give("arosa")
        await world.reached(1)
        assert it.view().latest_version == 0
        await world.give("chur")
        await world.give("arosa")
        await world.next_round(2)
        assert world.merges.merged == [(1, 0, 0, ("arosa00", "chur00")), (1, 0, 1, ("arosa01", "chur01"))]
        assert (it.view().round.base_version, it.view().latest_version) == (1, 1)

    play(scenario())


def test_who_asks_for_news_learns_the_end_first(world):
    """A party that has not seen how a round ended is told that, then of the round under way."""

    async def scenario():
        it = await world.start()
        before = it.view().revision
        await it.abort("enough")
        ended = await it.wait("bern", before, 5)
        assert (ended.round.number, ended.round.phase, ended.round.reason) == (1, Phase.ABORTED, "enough")
        present = await it.wait("bern", ended.revision, 5)
        assert (present.round.number, present.round.phase) == (2, Phase.OPEN)
        assert present.revision > ended.revision

    play(scenario())


def test_news_wakes_those_who_wait(world):
    """A call that waits is answered by the change, not by its timeout."""

    async def scenario():
        it = await world.start()
        waiting = asyncio.create_task(it.wait("chur", it.view().revision, 1e9))
        await world.enter("bern")
        assert [each.client for each in (await waiting).round.members] == ["bern"]

    world.policy = Policy(0, 100, 50, 1e9)
    play(scenario())


def test_counts_are_gathered_and_what_is_more_is_told_at_once(world, monkeypatch):
    """Members that enter and contribute do not wake each other, for a while; all that is more than that does."""

    async def scenario():
        it = await world.start()
        await world.enter("arosa", "bern")
        await world.give("bern")
        waiting = asyncio.create_task(it.wait("arosa", it.view().revision, 1e9))
        await world.enter("chur", "davos")
        await world.give("davos")
        assert not waiting.done()
        await it.leave("chur", it.view().round.number, "ill")
        now = (await waiting).round
        assert [each.status for each in now.members] == [
            Status.ENTERED, Status.CONTRIBUTED, Status.LEFT, Status.CONTRIBUTED,
        ]  # fmt: skip
        waiting = asyncio.create_task(it.wait("bern", it.view().revision, 1e9))
        await world.give("arosa")
        assert (await waiting).round.phase is Phase.MERGING
        world.merges.held.set()

    monkeypatch.setattr(coordinator, "LULL", 1e9)
    world.policy = Policy(0, 100, 50, 1e9)
    world.quorum, world.merges.held = 3, threading.Event()
    play(scenario())


def test_counts_are_told_when_the_lull_is_over(world, monkeypatch):
    """The last of several members that come together is not left out of what is shown."""

    async def scenario():
        it = await world.start()
        await world.enter("arosa")
        seen = it.view().revision
        await world.enter("bern", "chur")
        assert len((await it.wait("arosa", seen, 1e9)).round.live) == 3

    monkeypatch.setattr(coordinator, "LULL", 0.0)
    world.policy = Policy(0, 100, 50, 1e9)
    world.quorum = 3
    play(scenario())


def test_a_lost_member_restarts_the_round_without_it(world):
    """Silence in the second layer: the round starts again at the first one, and the lost are told why."""

    async def scenario():
        it = await world.start()
        await world.enter("arosa", "bern")
        await world.give("arosa")
        await world.give("bern")
        await world.reached(1)
        await world.passes(31, "arosa")
        round_ = it.view().round
        assert (round_.attempt, round_.layer, round_.merged) == (1, 0, ())
        assert round_.member("bern").reason == "not heard of for 30 s"
        await world.give("arosa")
        await world.reached(1, attempt=1)
        await world.give("arosa")
        await world.next_round(2)
        assert [each[3] for each in world.merges.merged] == [("arosa00", "bern00"), ("arosa10",), ("arosa11",)]
        with pytest.raises(StaleRoundRefusal):
            await it.contribute("bern", 1, 0, 1, "late")

    play(scenario())


def test_a_call_repeated_has_one_effect(world):
    """Entering, contributing and leaving twice: the second call answers the same, and changes nothing."""

    async def scenario():
        it = await world.start()
        await world.enter("arosa", "bern")
        revision = it.view().revision
        await world.enter("arosa")
        assert it.view().revision == revision
        await it.contribute("arosa", 1, 0, 0, "a")
        revision = it.view().revision
        assert (await it.contribute("arosa", 1, 0, 0, "a")).revision == revision
        with pytest.raises(CountedRefusal, match="counts already"):
            await it.contribute("arosa", 1, 0, 0, "other")
        await world.give("bern")
        await world.reached(1)
        assert (await it.contribute("arosa", 1, 0, 0, "a")).round.layer == 1
        await world.give("arosa")
        await world.give("bern")
        await world.next_round(2)
        assert (await it.contribute("bern", 1, 0, 1, "bern01")).round.phase is Phase.PUBLISHED
        assert len(world.merges.merged) == 2

    play(scenario())


def test_a_bad_contribution_changes_nothing(world):
    """It is refused, the member still owes, and may give another."""

    async def scenario():
        it = await world.start()
        await world.enter("arosa", "bern")
        revision = it.view().revision
        with pytest.raises(ContributionError, match="arosa: bad"):
            await world.give("arosa", "bad")
        assert it.view().revision == revision
        await world.give("arosa")
        assert it.view().round.member("arosa").status is Status.CONTRIBUTED

    play(scenario())


def test_a_round_is_entered_on_its_version_and_in_time(world):
    """Other weights, another round, a closed round: each refused by its name."""

    async def scenario():
        it = await world.start()
        with pytest.raises(StaleVersionRefusal):
            await it.enter("arosa", 1, 7, 8)
        with pytest.raises(StaleRoundRefusal, match="round 2 is not under way"):
            await it.enter("arosa", 2, 0, 8)
        await world.enter("arosa")
        await world.give("arosa")
        await world.reached(1)
        with pytest.raises(StaleRoundRefusal, match="takes no more members"):
            await it.enter("bern", 1, 0, 8)

    play(scenario())


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (NotPositiveDefiniteError("C + ΣKKᵀ of a is not positive definite"), "C + ΣKKᵀ of a is not positive definite"),
        (OSError("no such device"), "the merge failed: OSError: no such device"),
        (StateError("version 7, a: damaged"), "version 7, a: damaged"),
    ],
)
def test_a_merge_that_fails_aborts_the_round_with_the_reason(world, failure, told):
    """The round ends, its members are told why, and the next one stands on the version before."""

    async def scenario():
        it = await world.start()
        world.merges.failure = failure
        await world.enter("arosa")
        await world.give("arosa")
        await world.next_round(2)
        ended = (await it.wait("arosa", 0, 1)).round
        assert (ended.phase, ended.reason, ended.member("arosa").reason) == (Phase.ABORTED, told, told)
        assert it.view().round.base_version == 0

    play(scenario())


def test_a_restart_goes_on_where_the_round_was(world):
    """In every phase: what counted counts, a merge under way is done again, waits begin anew."""

    async def scenario():
        await world.start()
        await world.enter("arosa", "bern")
        await world.give("arosa")
        it = await world.start()
        assert [each.client for each in it.view().round.contributed] == ["arosa"]
        world.clock.now += 1e6
        it = await world.start()
        assert it.view().round.phase is Phase.COLLECTING
        world.merges.held = threading.Event()
        await world.give("bern")
        held = world.merges
        world.merges = FakeMerges()
        it = await world.start()
        await world.reached(1)
        held.held.set()
        assert world.merges.merged == [(1, 0, 0, ("arosa00", "bern00"))]
        assert it.view().round.merged[0].digest == "0:arosa00+bern00"

    play(scenario())


def test_a_round_found_waiting_takes_the_new_quorum(world):
    """An operator who lowers the quorum need not wait for the deadline."""

    async def scenario():
        world.quorum = 2
        await world.start()
        await world.enter("arosa")
        await world.give("arosa")
        assert world.merges.merged == []
        world.quorum = 1
        await world.start()
        await world.reached(1)
        assert world.merges.merged == [(1, 0, 0, ("arosa00",))]

    play(scenario())


def test_leaving_does_not_wait_for_a_merge(world):
    """A member that leaves while its layer merges is out at once: what it sent is not in what the others publish."""

    async def scenario():
        it = await world.start()
        first = world.merges.held = threading.Event()
        await world.enter("arosa", "bern")
        await world.give("arosa")
        await world.give("bern")
        assert it.view().round.phase is Phase.MERGING
        left = (await it.leave("bern", 1, "going home")).round
        assert (left.phase, left.attempt, left.layer) == (Phase.COLLECTING, 1, 0)
        assert (left.member("bern").status, left.member("bern").reason) == (Status.OUT, "going home")
        assert (await it.leave("bern", 1, "again")).round == left
        world.merges.held = None
        await world.give("arosa")
        first.set()
        await world.reached(1, attempt=1)
        await world.give("arosa")
        await world.next_round(2)
        assert [each[3] for each in world.merges.merged[1:]] == [("arosa10",), ("arosa11",)]
        assert it._store.version(1)[0].digest == "0:arosa10"

    play(scenario())


def test_the_last_member_that_leaves_ends_the_round(world):
    """While its layer merges, too: below the quorum nothing is published; said again it changes nothing."""

    async def scenario():
        it = await world.start()
        held = world.merges.held = threading.Event()
        await world.enter("arosa")
        await world.give("arosa")
        ended = (await it.leave("arosa", 1, "going home")).round
        held.set()
        assert (ended.phase, ended.member("arosa").reason) == (Phase.NO_QUORUM, "going home")
        assert (await it.leave("arosa", 1, "again")).round == ended
        assert it.view().latest_version == 0

    play(scenario())


def test_contributions_are_kept_no_longer_than_their_round(world):
    """When the round has ended, their blobs go; the merged layers stay."""

    async def scenario():
        it = await world.start()
        await world.enter("arosa")
        await world.give("arosa")
        await world.reached(1)
        assert world.merges.swept == set()
        await world.give("arosa")
        await world.next_round(2)
        await it.stop()
        assert world.merges.swept == {"arosa00", "arosa01"}

    play(scenario())


def test_the_state_is_swept_every_hour_in_which_nothing_is_merged(world):
    """A federation that rests gets rid of what stopped; while a layer merges, nothing rests yet on what it wrote."""

    async def scenario():
        it = await world.start()
        swept = world.merges.sweeps
        await world.passes(3599)
        assert world.merges.sweeps == swept
        await world.passes(1)
        while world.merges.sweeps == swept:
            await asyncio.sleep(0)
        await world.passes(3599)
        held = world.merges.held = threading.Event()
        await world.enter("arosa")
        await world.give("arosa")
        await world.passes(3600, "arosa")
        assert it.view().round.phase is Phase.MERGING
        assert world.merges.sweeps == swept + 1
        held.set()
        await world.reached(1)

    play(scenario())


def test_a_caller_that_goes_away_does_not_stop_a_change(world):
    """A cancelled call leaves memory and store in step."""

    async def scenario():
        it = await world.start()
        call = asyncio.create_task(it.enter("arosa", 1, 0, 8))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await it.settle()
        entered = it.view().round
        again = await world.start()
        assert again.view().round == entered

    play(scenario())


class Dying:
    """A store whose process dies at its n-th write: just before it, or just after."""

    def __init__(self, store, dies_at: int, *, before: bool) -> None:
        self.store = store
        self.left = dies_at
        self.before = before
        self.dead = threading.Event()
        self.buried = threading.Event()

    def __getattr__(self, name):
        return getattr(self.store, name)

    def record(self, round_: Round) -> int:
        self.left -= 1
        if self.left == 0 and self.before:
            self.die()
        revision = self.store.record(round_)
        if self.left == 0:
            self.die()
        return revision

    def die(self) -> None:
        self.dead.set()
        self.buried.wait()
        raise RuntimeError("dead")


async def live(world: World, wrapped=lambda store: store) -> None:
    """Two parties take part in the first round until it is published, whatever has happened before."""
    it = await world.start(wrapped)
    while it.view().latest_version == 0:
        round_ = it.view().round
        for client in ("arosa", "bern"):
            member = round_.member(client)
            if member is None:
                await world.enter(client)
            elif member.status is Status.ENTERED and len(round_.live) == 2 and round_.phase is not Phase.MERGING:
                await world.give(client)
        if it.view().round == round_:
            await world.until(lambda now, seen=round_: now != seen)


def test_a_death_at_any_write_changes_nothing(worlds):
    """Before or after each durable write of a round in turn: started again, the round publishes the same layers."""

    async def scenario(place: World, dies_at: int, *, before: bool):
        dying: list[Dying] = []

        def wrapped(store):
            dying.append(Dying(store, dies_at, before=before))
            return dying[0]

        life = asyncio.create_task(live(place, wrapped))
        while not dying and not life.done():
            await asyncio.sleep(0.001)
        death = asyncio.create_task(asyncio.to_thread(dying[0].dead.wait))
        await asyncio.wait({life, death}, return_when=asyncio.FIRST_COMPLETED)
        died = not life.done()
        if died:
            place.merges = FakeMerges()
            await live(place)
        version = list(dying[0].store.version(1))
        dying[0].dead.set()
        dying[0].buried.set()
        life.cancel()
        await asyncio.gather(life, death, return_exceptions=True)
        return died, version

    outcomes = []
    for before in (True, False):
        dies_at, died = 0, True
        while died:
            dies_at += 1
            place = worlds(f"{before}-{dies_at}", quorum=2)
            died, version = asyncio.run(asyncio.wait_for(scenario(place, dies_at, before=before), 60))
            outcomes.append(version)
        assert dies_at > 10
    assert all(
        each == [LayerWeights("a", "0:arosa00+bern00"), LayerWeights("b", "0:arosa01+bern01")] for each in outcomes
    )


async def published(world, *clients: str) -> None:
    """A whole round of these clients."""
    number = world.it.view().round.number
    await world.enter(*clients)
    for layer in (0, 1):
        for client in clients:
            await world.give(client)
        if layer == 0:
            await world.reached(1)
    await world.next_round(number + 1)


def test_a_rollback_publishes_an_earlier_versions_layers(world):
    """As a new version, which the next round stands on and builds on; what was published stays."""

    async def scenario():
        it = await world.start()
        await published(world, "arosa")
        await published(world, "bern")
        assert await it.roll_back(1, 2, "wrong facts") == 3
        view = it.view()
        assert (view.latest_version, view.restores) == (3, 1)
        assert (view.round.number, view.round.base_version) == (4, 3)
        store = it._store
        assert store.version(3) == store.version(1) != store.version(2)
        await published(world, "chur")
        assert (it.view().latest_version, it.view().restores) == (4, None)

    play(scenario())


def test_a_rollback_asked_twice_has_one_effect(world):
    """The same call answers the same version, also after a restart; from another version it is refused."""

    async def scenario():
        it = await world.start()
        await published(world, "arosa")
        assert await it.roll_back(0, 1, "back") == 2
        revision = it.view().revision
        assert await it.roll_back(0, 1, "back") == 2
        assert it.view().revision == revision
        await it.stop()
        it = await world.start()
        assert (it.view().latest_version, it.view().restores) == (2, 0)
        assert await it.roll_back(0, 1, "back") == 2
        with pytest.raises(StaleVersionRefusal, match="the newest version is 2, not 0"):
            await it.roll_back(1, 0, "back")
        assert await it.roll_back(1, 2, "forth") == 3

    play(scenario())


def test_a_rollback_ends_the_round_under_way(world):
    """Members are out with the reason, the layers they had merged are forgotten; what they send then is too late."""

    async def scenario():
        it = await world.start()
        await published(world, "arosa")
        await world.enter("arosa", "bern")
        await world.give("arosa")
        await world.give("bern")
        await world.reached(1)
        assert await it.roll_back(0, 1, "wrong facts") == 2
        ended = await it.wait("bern", 0, 1)
        assert (ended.round.number, ended.round.phase, ended.round.merged) == (2, Phase.PUBLISHED, ())
        assert {(each.status, each.reason) for each in ended.round.members} == {(Status.OUT, "wrong facts")}
        with pytest.raises(StaleRoundRefusal, match="round 2 is not under way"):
            await it.contribute("bern", 2, 0, 1, "late")

    play(scenario())


def test_what_cannot_be_rolled_back_is_refused(world):
    """A version that never was, the newest itself, and anything while a layer is merged; nothing changes."""

    async def scenario():
        it = await world.start()
        await published(world, "arosa")
        with pytest.raises(NotFoundRefusal, match="no version 7"):
            await it.roll_back(7, 1, "back")
        with pytest.raises(BadRequestRefusal, match="is the newest one"):
            await it.roll_back(1, 1, "back")
        world.merges.held = threading.Event()
        await world.enter("arosa")
        await world.give("arosa")
        revision = it.view().revision
        with pytest.raises(StaleRoundRefusal, match="is merging"):
            await it.roll_back(0, 1, "back")
        assert it.view().revision == revision
        world.merges.held.set()
        await world.reached(1)
        assert await it.roll_back(0, 1, "back") == 2

    play(scenario())


def test_a_wall_clock_that_jumps_ends_no_wait(world):
    """Set back or forward by years in the middle of a round, it is recorded, and nobody is lost or kept waiting."""

    async def scenario():
        it = await world.start()
        await world.enter("arosa", "bern")
        for jump in (1e9, -2e9):
            world.wall.now += jump
            await world.passes(1)
            assert [each.client for each in it.view().round.live] == ["arosa", "bern"]
            assert it.view().left == pytest.approx(100 - (1 if jump > 0 else 2))
        await world.give("arosa")
        await world.give("bern")
        await world.reached(1)
        await world.passes(31, "arosa")
        assert it.view().round.member("bern").reason == "not heard of for 30 s"
        await world.passes(50, "arosa")
        ended = (await it.wait("arosa", 0, 1)).round
        assert (ended.phase, ended.opened, ended.ended) == (Phase.NO_QUORUM, 1.8e9, 0.8e9)

    play(scenario())


def test_an_abort_that_comes_twice_ends_one_round(world):
    """It names its round: said again it changes nothing, also after a restart; for a round that ended otherwise it is
    refused."""

    async def scenario():
        it = await world.start()
        ended = await it.abort("enough", 1)
        assert (ended.round.number, ended.round.phase) == (1, Phase.ABORTED)
        await world.enter("arosa")
        revision = it.view().revision
        assert (await it.abort("enough", 1)).round == ended.round
        it = await world.start()
        assert (await it.abort("enough", 1)).round == ended.round
        assert it.view().revision == revision
        await world.give("arosa")
        await world.reached(1)
        await world.give("arosa")
        await world.next_round(3)
        for number in (2, 4):
            with pytest.raises(StaleRoundRefusal, match=f"round {number} is not under way: round 3 is"):
                await it.abort("enough", number)

    play(scenario())


def test_who_left_is_not_taken_in_again(world):
    """An Enter that comes late, after the Leave, is refused by name; one that was lost may come back."""

    async def scenario():
        it = await world.start()
        await world.enter("arosa", "bern")
        await it.leave("bern", 1, "going home")
        with pytest.raises(StaleRoundRefusal, match="bern left round 1: going home"):
            await world.enter("bern")
        it = await world.start()
        with pytest.raises(StaleRoundRefusal, match="bern left round 1"):
            await world.enter("bern")
        await world.passes(31)
        assert it.view().round.live == ()
        await world.enter("arosa")
        assert [each.client for each in it.view().round.live] == ["arosa"]

    play(scenario())


def test_a_round_that_all_have_left_waits_for_nobody(world):
    """Its deadline counts from the first party that enters then: who comes late finds no clock that has run down."""

    async def scenario():
        it = await world.start()
        await world.enter("arosa")
        await world.give("arosa")
        await it.leave("arosa", 1, "going home")
        assert it.view().left is None
        await world.passes(99)
        await world.enter("bern")
        assert it.view().left == pytest.approx(100)
        await world.passes(99, "bern")
        await world.give("bern")
        await world.reached(1)

    world.quorum = 1
    world.policy = Policy(10, 100, 50, 1e9)
    play(scenario())


def test_calls_of_rounds_that_have_ended_are_refused_by_name(world):
    """Enter, Contribute and Leave of an older round or attempt: nothing changes, whatever they hold."""

    async def scenario():
        it = await world.start()
        await published(world, "arosa")
        await world.enter("arosa")
        revision = it.view().revision
        for call in (
            it.enter("arosa", 1, 0, 8),
            it.contribute("arosa", 1, 0, 0, "other"),
            it.contribute("arosa", 2, 1, 0, "x"),
            it.contribute("arosa", 2, 0, 1, "x"),
            it.leave("arosa", 1, "late"),
            it.leave("arosa", 3, "early"),
        ):
            with pytest.raises(StaleRoundRefusal):
                await call
        assert (await it.contribute("arosa", 1, 0, 0, "arosa00")).round.number == 1
        assert it.view().revision == revision

    play(scenario())


def test_a_client_shut_out_while_its_layer_merges_is_not_in_what_is_published(world):
    """Nothing is waited for; a kill between the revocation and its effect on the round makes no difference."""

    async def scenario():
        it = await world.start()
        held = world.merges.held = threading.Event()
        await world.enter("arosa", "bern")
        it._store.add_client("bern", "client", "1", 0.0)
        await world.give("arosa")
        await world.give("bern")
        assert it.view().round.phase is Phase.MERGING
        it._store.revoke("bern", 5.0)
        world.merges = FakeMerges()
        it = await world.start()
        assert it.view().round.member("bern").reason == "revoked"
        await it.drop("bern", "revoked")
        await world.give("arosa")
        await world.reached(1, attempt=1)
        held.set()
        assert world.merges.merged == [(1, 1, 0, ("arosa10",))]

    play(scenario())


def test_a_contribution_to_a_layer_that_merges_is_too_late(world):
    """It is refused by name at once; the merge goes on."""

    async def scenario():
        it = await world.start()
        held = world.merges.held = threading.Event()
        await world.enter("arosa", "bern")
        await world.give("arosa")
        await world.passes(101, "bern")
        assert it.view().round.phase is Phase.MERGING
        with pytest.raises(StaleRoundRefusal, match="bern is not in round 1: late"):
            await world.give("bern")
        with pytest.raises(CountedRefusal, match="counts already"):
            await world.give("arosa", "other")
        held.set()
        await world.reached(1)

    world.policy = Policy(0, 100, 50, 1e9)
    play(scenario())


def test_a_merge_waits_for_a_disk_that_is_full(world, monkeypatch):
    """As soon as it takes the weights the round goes on; nobody is asked for anything twice."""
    monkeypatch.setattr(merge_runs, "DISK_PAUSE", 0)

    async def scenario():
        it = await world.start()
        world.merges.failure = BadFileError("weights")
        world.merges.failure.__cause__ = OSError(errno.ENOSPC, "No space left on device")
        await world.enter("arosa")
        await world.give("arosa")
        while not it._run._disk:
            await asyncio.sleep(0)
        assert it.view().round.phase is Phase.MERGING
        world.merges.failure = None
        await world.reached(1)
        assert world.merges.merged == [(1, 0, 0, ("arosa00",))]

    play(scenario())


def test_a_disk_that_stays_full_ends_the_round_with_the_reason(world, monkeypatch):
    """After as long as a first layer may take; the next round stands on the version before."""
    monkeypatch.setattr(merge_runs, "DISK_PAUSE", 0)

    async def scenario():
        it = await world.start()
        world.merges.failure = OSError(errno.EROFS, "Read-only file system")
        await world.enter("arosa")
        await world.give("arosa")
        await world.next_round(2)
        told = "the merge did not end within 0.05 s: the server's disk: Read-only file system"
        assert (await it.wait("arosa", 0, 1)).round.reason == told

    world.policy = Policy(0, 0.05, 50, 1e9)
    play(scenario())


def test_lost_contributions_are_owed_again_with_a_whole_wait(world):
    """However late the merge found it: who is asked again has as long as for the first time."""

    async def scenario():
        it = await world.start()
        world.merges.failure = LostContributionsError(("bern",))
        await world.enter("arosa", "bern")
        held = world.merges.held = threading.Event()
        await world.give("bern")
        await world.give("arosa")
        world.clock.now += 99
        held.set()
        await world.until(lambda now: now.phase is Phase.COLLECTING)
        world.merges.failure = world.merges.held = None
        assert [each.client for each in it.view().round.contributed] == ["arosa"]
        await world.passes(99)
        await world.give("bern")
        await world.reached(1)
        assert world.merges.merged == [(1, 0, 0, ("arosa00", "bern00"))]

    world.policy = Policy(0, 100, 50, 1e9)
    play(scenario())


def test_a_merge_that_does_not_end_holds_no_round_up(world):
    """After as long as a first layer may take the round is aborted with the reason, and the next one can merge."""

    async def scenario():
        it = await world.start()
        stuck = world.merges.held = threading.Event()
        await world.enter("arosa")
        await world.give("arosa")
        await world.next_round(2)
        assert (await it.wait("arosa", 0, 1)).round.reason == "the merge did not end within 0.05 s"
        world.merges.held, it._policy = None, POLICY  # as long as a merge needs on a busy machine
        await world.enter("arosa")
        await world.give("arosa")
        await world.reached(1)
        stuck.set()

    world.policy = Policy(0, 0.05, 50, 1e9)
    play(scenario())


def test_a_server_that_is_to_stop_begins_nothing_more(world):
    """Who waits is sent away; the merge under way is recorded, and no round opens; then all goes on."""

    async def scenario():
        it = await world.start()
        await world.enter("arosa")
        await world.give("arosa")
        await world.reached(1)
        held = world.merges.held = threading.Event()
        await world.give("arosa")
        waiting = asyncio.create_task(it.wait("arosa", it.view().revision, 1e9))
        draining = asyncio.create_task(it.drain(30))
        with pytest.raises(StoppingRefusal):
            await waiting
        held.set()
        assert await draining
        assert (it.view().round.number, it.view().round.phase) == (1, Phase.PUBLISHED)
        with pytest.raises(StoppingRefusal):
            await it.enter("bern", 2, 1, 8)
        await it.stop()
        it = await world.start()
        assert (it.view().round.number, it.view().latest_version) == (2, 1)

    world.policy = Policy(0, 100, 50, 1e9)
    play(scenario())


def test_a_merge_that_cannot_be_recorded_is_recorded_later(world, monkeypatch):
    """A disk that is full for a moment costs neither the round nor a second merge."""
    monkeypatch.setattr(coordinator, "RECORD_PAUSE", 0)

    class Full:
        def __init__(self, store):
            self.store, self.refuses = store, False

        def __getattr__(self, name):
            return getattr(self.store, name)

        def record(self, round_):
            if self.refuses and round_.layer == 1:
                self.refuses -= 1
                raise StateError("the disk is full")
            return self.store.record(round_)

    async def scenario():
        disks = []
        await world.start(lambda store: disks.append(Full(store)) or disks[0])
        disks[0].refuses = 3
        await world.enter("arosa")
        await world.give("arosa")
        await world.reached(1)
        assert not disks[0].refuses
        assert world.merges.merged == [(1, 0, 0, ("arosa00",))]

    play(scenario())


HERS, HIS, THEIRS = (Claim(b"s" * 32, each * 32) for each in (b"h", b"m", b"t"))


def test_who_merged_what_the_weights_hold_is_to_tell_of_it(worlds):
    """In the order in which they entered, which settles a contradiction; also after a rollback to their round."""
    world = worlds(expects=True)

    async def scenario():
        it = await world.start()
        assert it.view().round.expected == ()
        await world.publish("chur", "arosa")
        await world.publish("bern")
        await it.roll_back(1, 2, "back")
        assert it.view().round.expected == ("chur", "arosa")
        await it.report("arosa", 4, 3, 9, 8, (HIS,))
        await it.stop()
        it = await world.start()
        await it.report("chur", 4, 3, 9, 8, (HERS,))
        told = {each.client: each.kind for each in it.view().round.verdicts}
        assert told == {"chur": Kind.KEEP, "arosa": Kind.YIELD}
        assert it.view().verdicts == {"chur": 1, "arosa": 2}

    play(scenario())


def test_what_failed_is_compared_in_the_end_without_who_does_not_tell(worlds):
    """`layer_deadline` after the first report, by the server's own clock; a later report changes nothing of it."""
    world = worlds(expects=True)

    async def scenario():
        it = await world.start()
        await world.publish("arosa", "bern", "chur")
        await it.report("bern", 2, 1, 9, 8, (HIS,))
        await it.report("arosa", 2, 1, 9, 8, (HERS,))
        await world.passes(49)
        assert it.view().round.verdicts == ()
        await world.passes(1)
        assert [each.kind for each in it.view().round.verdicts] == [Kind.KEEP, Kind.YIELD]
        await it.report("chur", 2, 1, 9, 8, (HIS,))
        await world.passes(1000)
        assert len(it.view().round.verdicts) == 2

    play(scenario())


def test_what_was_decided_is_read_again_where_the_database_was_away(worlds):
    """Clients learn of it with the next change; nothing is given twice."""
    world = worlds(expects=True)

    async def scenario():
        it = await world.start(Forgetful)
        await world.publish("arosa", "bern")
        world.it._store.away = True
        await it.report("arosa", 2, 1, 9, 8, (HERS,))
        await it.report("bern", 2, 1, 9, 8, (HIS,))
        assert (len(it.view().round.verdicts), it.view().verdicts, it.view().settled) == (2, {}, False)
        world.it._store.away = False
        await world.passes(1)
        assert (it.view().verdicts, it.view().settled) == ({"arosa": 1, "bern": 2}, True)

    play(scenario())


def test_nobody_sees_claims_settled_before_the_verdicts(worlds):
    """A client that was told of none goes on with all its edits, and looks again when they are merged."""
    world = worlds(expects=True)

    async def scenario():
        it = await world.start(Forgetful)
        await world.publish("arosa", "bern")
        await it.report("arosa", 2, 1, 9, 8, (HERS,))
        world.it._store.seen = lambda: (len(it.view().round.verdicts), it.view().verdicts)
        await it.report("bern", 2, 1, 9, 8, (HIS,))
        assert (world.it._store.at, it.view().verdicts) == ([(0, {})], {"arosa": 1, "bern": 2})

    play(scenario())


def test_a_party_that_comes_while_an_admin_decides_does_not_wait_for_ever(worlds):
    """A decision goes by who contradicts whom at that moment, and who comes later goes by the decision."""
    world = worlds(quorum=2, policy=replace(POLICY, rule=Rule("manual")))

    async def scenario():
        it = await world.start()
        for client, claims in (("arosa", (HIS,)), ("bern", (HERS,))):
            await it.enter(client, 1, 0, 8, claims)
        late = it.enter("chur", 1, 0, 8, (THEIRS,))
        found, _ = await asyncio.gather(it.decide(HIS.slot, "arosa"), late)
        assert found.kept == "arosa"
        kinds = [(each.client, each.kind) for each in it.view().round.verdicts[-3:]]
        assert sorted(kinds, key=str) == [("arosa", Kind.KEEP), ("bern", Kind.YIELD), ("chur", Kind.YIELD)]
        assert await it.decide(HIS.slot, "arosa") == world.it._store.conflict(HIS.slot)
        assert len(it.view().round.verdicts) == 5

    play(scenario())


class Forgetful:
    """A store that tells no numbers while its database is `away`, and keeps what was `seen` when it was asked."""

    def __init__(self, store: SqlStore) -> None:
        self.store, self.away, self.seen, self.at = store, False, None, []

    def __getattr__(self, name: str):
        return getattr(self.store, name)

    def newest_verdicts(self):
        """The numbers, unless it is away."""
        if self.seen:
            self.at.append(self.seen())
        if self.away:
            raise StateError("the database is away", mend="wait")
        return self.store.newest_verdicts()
