"""SIGTERM: callers are told and turned away, what is under way gets its time, and the process goes within it."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from collabedit.client.connection import Address, translate
from collabedit.common.errors import UnreachableError
from collabedit.v1 import federation_pb2 as pb

NAMES = ("arosa", "bern")
LONG = "600"  # seconds of drain: a test that waits for it fails


@dataclass
class Held:
    """A server whose merges wait until `release`, or for ever."""

    server: object
    pipe: Path

    def release(self) -> None:
        """Lets the next merge go on; it waits for the merge to come so far."""
        self.pipe.write_bytes(b"")


@pytest.fixture
def held(servers, tmp_path):
    """Makes servers with held merges; `unhold` is for the next start of the same state."""

    def make(*flags: str) -> Held:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        server = servers("--quorum", "2", *flags)
        plain = server.command
        script = Path(__file__).with_name("held_server.py")
        server.command = lambda: [sys.executable, str(script), str(pipe), *plain()[1:]]
        server.unhold = lambda: setattr(server, "command", plain)
        return Held(server.start(), pipe)

    return make


def merging(members) -> list[pb.RoundState]:
    """All members have contributed to the first layer, whose merge is under way."""
    states = [each.contribute(state) for each, state in [(each, each.enter()) for each in members]]
    return [each.wait(state, lambda now: now.phase == pb.PHASE_MERGING) for each, state in zip(members, states)]  # noqa: B905


def to_the_end(members, states) -> list[tuple[str, str]]:
    """All go on until the round has ended; the content addresses of what it published."""
    with ThreadPoolExecutor(len(members)) as pool:
        ends = list(pool.map(lambda pair: pair[0].finish(pair[1]), zip(members, states, strict=True)))
    assert {(each.phase, each.attempt) for each in ends} == {(pb.PHASE_PUBLISHED, 0)}
    layers = members[0].federation.GetVersion(pb.GetVersionRequest(version=1)).layers
    return [(each.weight, each.digest) for each in layers]


def ended(server) -> int:
    """The exit code; the test's own time limit is what a process that stays would meet."""
    return server.process.wait(timeout=60)


def assert_turned_away(error: grpc.RpcError) -> None:
    """UNAVAILABLE, by its name and with the reason; for the client it is a server to be waited for."""
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert ("collabedit-error", "stopping") in [(each.key, each.value) for each in error.trailing_metadata()]
    told = translate(error, Address("localhost", 1))
    assert isinstance(told, UnreachableError)
    assert "the server is stopping" in told.what


def expect_turned_away(party) -> None:
    """A call of any kind, to a server that has been told to stop."""
    with pytest.raises(grpc.RpcError) as refused:
        party.federation.Await(pb.AwaitRequest(revision=0, timeout_seconds=1))
    assert_turned_away(refused.value)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Filled by the first that asks."""
    return []


@pytest.fixture
def wanted(uninterrupted, servers, parties):
    """What a round of the two publishes where nothing interrupts it."""
    if not uninterrupted:
        members = parties(servers("--quorum", "2", state="reference").start(), *NAMES)
        uninterrupted.append(to_the_end(members, [each.enter() for each in members]))
    return uninterrupted[0]


def test_a_merge_that_ends_in_time_is_kept(held, parties, wanted):
    """Who waits for news is told at once, other calls are turned away, the merge is recorded; exit code 0."""
    it = held("--drain", LONG)
    members = parties(it.server, *NAMES)
    states = merging(members)
    with ThreadPoolExecutor(1) as pool:
        news = pool.submit(members[0].federation.Await, pb.AwaitRequest(revision=states[0].revision, timeout_seconds=9))
        it.server.process.terminate()
        with pytest.raises(grpc.RpcError) as told:
            news.result()
        assert_turned_away(told.value)
    expect_turned_away(members[1])
    asked = it.server.check()
    assert (asked.returncode, "does not serve: it starts or stops" in asked.stderr) == (7, True)
    it.release()
    assert ended(it.server) == 0
    assert "the merge under way is given up" not in it.server.log()
    it.server.unhold()
    it.server.start()
    state = members[0].federation.Await(pb.AwaitRequest(revision=0, timeout_seconds=1))
    assert (state.phase, state.layer) == (pb.PHASE_COLLECTING, 1)
    assert to_the_end(members, states) == wanted


def test_a_merge_that_does_not_end_is_given_up_and_done_again_to_the_same_bits(held, parties, wanted):
    """The process goes within `drain`, with exit code 0, whatever the merge's thread does."""
    it = held("--drain", "0.1")
    members = parties(it.server, *NAMES)
    states = merging(members)
    assert it.server.stop() == 0
    assert "the merge under way is given up" in it.server.log()
    assert it.server.check().returncode == 7
    it.server.unhold()
    it.server.start()
    assert to_the_end(members, states) == wanted


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_process_at_once(held, parties, second):
    """Also while a merge and the whole drain are still to be waited for; the exit code is 0."""
    it = held("--drain", LONG)
    members = parties(it.server, *NAMES)
    states = merging(members)
    with pytest.raises(grpc.RpcError), ThreadPoolExecutor(1) as pool:
        news = pool.submit(members[0].federation.Await, pb.AwaitRequest(revision=states[0].revision, timeout_seconds=9))
        it.server.process.terminate()
        news.result()  # it is told when the server has taken the first signal
    it.server.process.send_signal(second)
    assert ended(it.server) == 0


def two_halves(data: bytes, rest_may_come: threading.Event):
    """Chunks of a blob: the second one comes when the test says so."""
    digest, half = hashlib.sha256(data).hexdigest(), len(data) // 2
    first, second = data[:half], data[half:]
    yield pb.WriteRequest(digest=digest, size=len(data), data=first, checksum=zlib.crc32(first))
    rest_may_come.wait(timeout=60)
    yield pb.WriteRequest(offset=half, data=second, checksum=zlib.crc32(second))


def begun(party, data: bytes, rest_may_come: threading.Event) -> grpc.Future:
    """An upload whose first half the server has."""
    stub = party.channel.stream_unary(
        "/collabedit.v1.Blobs/Write", pb.WriteRequest.SerializeToString, pb.WriteReply.FromString
    )
    call = stub.future(two_halves(data, rest_may_come), metadata=party.metadata)
    digest = hashlib.sha256(data).hexdigest()
    while not party.blobs.QueryWrite(pb.QueryWriteRequest(digest=digest)).committed:
        pass
    return call


def test_an_upload_under_way_may_end(servers, parties):
    """Its bytes are taken, and answered; a new call is turned away meanwhile."""
    server = servers("--drain", LONG).start()
    (party,) = parties(server, "bern")
    state, rest = party.enter(), threading.Event()
    data = party.contribution(state)
    call = begun(party, data, rest)
    with pytest.raises(grpc.RpcError), ThreadPoolExecutor(1) as pool:
        news = pool.submit(party.federation.Await, pb.AwaitRequest(revision=state.revision, timeout_seconds=9))
        server.process.terminate()
        news.result()
    rest.set()
    assert call.result(timeout=60).committed == len(data)
    assert ended(server) == 0
    server.start()
    assert party.finish(party.contribute(state)).phase == pb.PHASE_PUBLISHED


def test_an_upload_that_stalls_is_cut_off_and_goes_on_later(servers, parties):
    """Exit code 0 within `drain`; what was on the disk need not be sent again."""
    server = servers("--drain", "0.1").start()
    (party,) = parties(server, "bern")
    state, rest = party.enter(), threading.Event()
    data = party.contribution(state)
    call = begun(party, data, rest)
    assert server.stop() == 0
    assert call.exception(timeout=60).code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    rest.set()
    server.start()
    held = party.blobs.QueryWrite(pb.QueryWriteRequest(digest=hashlib.sha256(data).hexdigest()))
    assert (held.committed, held.complete) == (len(data) // 2, False)


def test_an_idle_server_stops_at_once(servers):
    """Nothing is under way: nothing is waited for, however long `drain` is."""
    server = servers("--drain", LONG).start()
    server.process.send_signal(signal.SIGINT)
    assert ended(server) == 0
    assert server.check().returncode == 7
