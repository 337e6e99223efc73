"""A server that dies before any one call of its store or its blobs: started again it publishes the same bits.

In this process, with the real store, blobs and merge: what was durable before the death is a prefix of the writes of an
uninterrupted round, and every third prefix is tried. Real processes are killed at every write by `make chaos`.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from collabedit.server.blobs import BlobStore
from collabedit.server.config import ServerConfig
from collabedit.server.coordinator import Coordinator
from collabedit.server.database import migrate, open_engine, sqlite_url
from collabedit.server.federation import Federation, prepare
from collabedit.server.keeper import Plan
from collabedit.server.merging import Merger
from collabedit.server.policy import Policy
from collabedit.server.rounds import Phase, Status
from collabedit.server.sql_store import SqlStore
from collabedit.v1 import federation_pb2 as pb

NAMES = ("arosa", "bern")
PATIENT = Policy(entry_window=0, round_deadline=1e9, layer_deadline=1e9, liveness=1e9)


class DeadError(Exception):
    """The process is gone: nothing that it would still do happens."""


@dataclass
class Life:
    """How many calls a process still makes; `made` counts them."""

    left: float = float("inf")
    made: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def breathe(self) -> None:
        """One call; the last but none raises DeadError, and so do all that follow."""
        with self.lock:
            self.check()
            self.left -= 1
            self.made += 1

    def check(self) -> None:
        """Raises DeadError once it is over."""
        if self.left <= 0:
            raise DeadError


class Mortal:
    """A thing whose every call is one of its process's life."""

    def __init__(self, thing: Any, life: Life) -> None:
        self._thing = thing
        self._life = life

    def __contains__(self, what: object) -> bool:
        return what in self._thing

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._thing, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self._life.breathe()
            return value(*arguments, **named)

        return call if callable(value) else value

    @contextmanager
    def writer(self, *arguments: Any) -> Iterator[Mortal]:
        """A blob's writer, mortal too."""
        self._life.breathe()
        with self._thing.writer(*arguments) as writer:
            yield Mortal(writer, self._life)


@dataclass
class Host:
    """What lies on the disk of a server's host."""

    folder: Path
    federation: Federation
    contributions: dict[tuple[str, int], bytes]

    async def live(self, life: Life) -> list[Any]:
        """A server process that is up until the round is published, with two parties that do what they owe."""
        store = SqlStore(open_engine(sqlite_url(self.folder / "db")))
        blobs = Mortal(BlobStore(self.folder / "blobs"), life)
        it = self.coordinator(Mortal(store, life), blobs)
        try:
            await it.start()
            while it.view().latest_version == 0:
                for client in NAMES:
                    await self.take_part(it, client, blobs)
                seen = it.view().round
                await it.until(lambda now, seen=seen: now != seen or seen.phase is not Phase.MERGING, 0.02)
                life.check()
            await it.stop()
            return list(store.version(1) or ())
        finally:
            life.left = 0
            with suppress(DeadError):
                await it.stop()
            store.close()

    def coordinator(self, store: Any, blobs: Any) -> Coordinator:
        """The coordinator of a process."""
        made = self.federation
        merger = Merger(made.settings, made.model, made.covariance, blobs, roots=self.folder / "roots")
        return Coordinator(store, merger, Plan(made.exchanges, 2), PATIENT)

    async def take_part(self, it: Coordinator, client: str, blobs: Any) -> None:
        """What the party owes the round now, as its calls bring it."""
        round_ = it.view().round
        member = round_.member(client)
        if member is None:
            await it.enter(client, 1, 0, 10)
        elif member.status is Status.ENTERED and len(round_.live) == 2 and round_.phase is not Phase.MERGING:
            data = self.contributions[client, round_.layer]
            digest = hashlib.sha256(data).hexdigest()
            if blobs.missing([digest]):
                held = blobs.committed(digest)
                with blobs.writer(digest, len(data), held) as writer:
                    half = max(held, len(data) // 2)
                    writer.append(held, data[held:half])
                    writer.append(half, data[half:])
                    writer.finish()
            await it.contribute(client, round_.number, round_.attempt, round_.layer, digest)


@pytest.fixture(scope="module")
def founded(tmp_path_factory, model) -> tuple[Path, Federation]:
    """The state of a federation that has just been founded."""
    folder = tmp_path_factory.mktemp("founded")
    engine = open_engine(sqlite_url(folder / "db"))
    migrate(engine)
    store = SqlStore(engine)
    made = prepare(ServerConfig(model=str(model), quorum=2), store, BlobStore(folder / "blobs"), "prefixes")
    store.close()
    return folder, made


@pytest.fixture
def hosts(founded, tmp_path, parties):
    """Makes hosts with that state, each its own."""
    folder, made = founded
    members = parties(SimpleNamespace(address="localhost:9"), *NAMES)
    written = {}
    for each in members:
        each.settings = made.settings.model_dump()
        for layer in range(len(made.exchanges)):
            written[each.client, layer] = each.contribution(pb.RoundState(round=1, base_version=0, layer=layer))

    def make(name: str) -> Host:
        return Host(Path(shutil.copytree(folder, tmp_path / name)), made, written)

    return make


def lived(host: Host, life: Life) -> list[Any]:
    """Runs a process to its end; DeadError where that comes before the round's."""
    return asyncio.run(asyncio.wait_for(host.live(life), 60))


def test_a_restart_from_any_prefix_of_the_writes_publishes_the_same_bits(hosts):
    """Dead before its first call, its fourth, … : what the next process publishes does not differ in a bit."""
    whole = Life()
    wanted = lived(hosts("whole"), whole)
    assert whole.made > 40
    for calls in range(0, whole.made, 3):
        host = hosts(str(calls))
        with suppress(DeadError):
            lived(host, Life(calls))
        assert lived(host, Life()) == wanted, calls
        shutil.rmtree(host.folder)


def test_a_server_that_dies_again_and_again_comes_to_the_same_end(hosts):
    """A few calls more in each life: the round completes, to the same bits."""
    wanted = lived(hosts("whole"), Life())
    host, calls, found = hosts("often"), 12, None
    while found is None:
        with suppress(DeadError):
            found = lived(host, Life(calls))
        calls += 1
    assert found == wanted
