"""What the server says, as a client takes it: verdicts that one answer does not hold, and whom a round waits for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import grpc

from collabedit.client.federation import Federation
from collabedit.client.report import waiting_line
from collabedit.client.snapshot import Phase, Snapshot
from collabedit.v1 import federation_pb2 as pb

NAME = bytes(32)


class PagingServer:
    """In the place of a connection: a server that has some verdicts, and tells few of them at once."""

    def __init__(self, numbers: range, at_once: int) -> None:
        self.channel = grpc.insecure_channel("localhost:1")
        self._numbers, self._at_once = numbers, at_once

    def call(self, _: Any, request: pb.ListVerdictsRequest, **__: Any) -> pb.ListVerdictsReply:
        """The first verdicts after the one that the request names."""
        some = [number for number in self._numbers if number > request.after][: self._at_once]
        claim = pb.Claim(slot=NAME, fact=NAME)
        return pb.ListVerdictsReply(
            verdicts=[pb.Verdict(number=each, round=1, claim=claim, kind="VERDICT_KIND_YIELD") for each in some]
        )


def test_verdicts_that_one_message_does_not_hold_are_asked_for_until_all_are_there() -> None:
    """None is lost: the ledger takes the newest number as heeded, whatever came with it."""
    federation = Federation(PagingServer(range(1, 12), at_once=4), patience=0)  # type: ignore[arg-type]
    assert [each.number for each in federation.verdicts(2)] == list(range(3, 12))
    assert federation.verdicts(11) == []


def test_who_waits_in_a_round_is_told_whom_for() -> None:
    """Below the quorum, for others to come, also where it is alone; then for those that are in."""
    now = Snapshot(round=4, phase=Phase.COLLECTING, revision=1, base_version=3, members=1, contributed=1, quorum=3)
    assert waiting_line(now) == "round 4: 1 of at least 3 members are in; waiting for the others to come"
    there = replace(now, members=3)
    assert waiting_line(there) == "round 4: 1 of 3 members are done"
    assert waiting_line(replace(now, quorum=1)) == "", "nobody else is in"
