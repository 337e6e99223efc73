"""A server over mutual TLS: enrolment by the command that it prints, a round, tokens, revocation."""

from __future__ import annotations

import shlex
from pathlib import Path

import grpc
import pytest

from collabedit.client.connection import Address, open_channel
from collabedit.client.enrolment import enrol
from collabedit.common.credentials import Credentials
from collabedit.v1 import federation_pb2 as pb


def enrolled(command: str, folder: Path, name: str) -> Path:
    """Does what the command does; the folder then holds the credentials."""
    words = shlex.split(command)
    assert words[:3] == ["collab", "pki", "enrol"]
    flags = dict(zip(words[3::2], words[4::2], strict=True))
    return enrol(flags["--server"], flags["--token"], flags["--ca-fingerprint"], folder, client_id=name).folder


def channel_of(server, folder: Path) -> grpc.Channel:
    """A channel with the credentials of a folder."""
    return open_channel(Address.parse(server.address), Credentials.load(folder))


def test_from_the_printed_command_to_a_merged_round_and_out_again(servers, parties, tmp_path):
    """A party enrols with what the first start prints, edits, and is shut out within seconds of its revocation."""
    server = servers()
    server.secure = True
    server.start()
    credentials = enrolled(server.enrolment, tmp_path / "bern", "bern")
    (bern,) = parties(server, "bern", channels=[channel_of(server, credentials)])
    (admin,) = parties(server, "admin", channels=[channel_of(server, server.state / "pki" / "admin")])
    assert bern.join().round.round == 1
    assert bern.settings["federation"].startswith("sha256:")
    assert bern.finish(bern.enter()).phase == pb.PHASE_PUBLISHED
    assert admin.operations.GetStatus(pb.GetStatusRequest()).clients == 1

    issued = admin.operations.IssueToken(pb.IssueTokenRequest(role="client", uses=1, valid_minutes=5))
    assert enrolled(issued.command, tmp_path / "chur", "chur")

    bern.enter()
    admin.operations.Revoke(pb.RevokeRequest(client_id="bern"))
    with pytest.raises(grpc.RpcError) as caught:
        bern.join()
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert ("collabedit-error", "revoked") in [tuple(each) for each in caught.value.trailing_metadata()]
    (member,) = admin.operations.ListRounds(pb.ListRoundsRequest(limit=1)).rounds[0].members
    assert (member.client_id, member.reason) == ("bern", "revoked")


def test_the_command_is_printed_until_somebody_has_enrolled(servers, tmp_path):
    """A start with nobody enrolled prints a command; a later one does not; the CA and the check stay."""
    server = servers()
    server.secure = True
    first = server.start().enrolment
    server.stop()
    second = server.start().enrolment
    assert first != second
    assert first.split()[-1] == second.split()[-1]
    enrolled(second, tmp_path / "bern", "bern")
    assert server.check().returncode == 0
    server.kill()
    server.enrolment = ""
    server.start(prints_command=False)
    assert server.enrolment == ""
