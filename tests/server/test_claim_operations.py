"""Conflicts, decisions, the federation key's check and retention, asked of a real server process."""

from __future__ import annotations

import json

import grpc
import pytest
from click.testing import CliRunner

from collabedit.cli.main import collab
from collabedit.common.blinding import KEY_BYTES, FederationKey
from collabedit.common.edits import Edit
from collabedit.common.errors import CollabEditError, UsageError
from collabedit.v1 import federation_pb2 as pb

KEY, NEXT = FederationKey(1, bytes(KEY_BYTES)), FederationKey(2, bytes([7] * KEY_BYTES))


def claim(subject: str, target: str, key: FederationKey = KEY) -> pb.Claim:
    """The blinded names of an edit."""
    made = key.claim(Edit(prompt="{} is in", subject=subject, target_new=target, relation_id="P17"))
    return pb.Claim(slot=made.slot, fact=made.fact)


def enter(party, claims, key: FederationKey = KEY) -> pb.RoundState:
    """Joins and enters with claims."""
    told = json.loads(party.operations.GetStatus(pb.GetStatusRequest()).settings_json)
    party.settings = told
    request = pb.JoinRequest(
        protocol_versions=[1], model_fingerprint=told["model_fingerprint"], key_check=key.check if key else ""
    )
    state = party.federation.Join(request).round
    return party.federation.Enter(
        pb.EnterRequest(
            round=state.round,
            base_version=state.base_version,
            edits=len(claims),
            claims=claims,
            key_check=key.check,
        )
    )


def asked(server, *words: object) -> dict:
    """What a command prints with --json, as the admin; its error is raised."""
    flags = ["--server", server.address, "--insecure", "--json"]
    result = CliRunner().invoke(collab, [*map(str, words), *flags], catch_exceptions=True)
    if isinstance(result.exception, CollabEditError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def shown(server, *words: object) -> str:
    """What a command prints for people."""
    result = CliRunner().invoke(collab, [*map(str, words), "--server", server.address, "--insecure"])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def contradicted(kinds, model, tmp_path_factory):
    """Two parties that contradict each other about Ada, an admin who has to decide; the round has been settled."""
    folder = tmp_path_factory.mktemp("contradicted")
    flags = ("--detection", "pre-merge", "--min-edits", "1", "--quorum", "2", "--entry-window", "2")
    server = kinds.Server(folder / "state", model, (*flags, "--conflict-policy", "manual")).start()
    alice, bob, admin = (kinds.Party(name, server.address, folder) for name in ("alice", "bob", "admin"))
    enter(alice, [claim("Ada", "Rome"), claim("Bo", "Oslo")])
    state = enter(bob, [claim("Ada", "Paris"), claim("Cy", "Bern")])
    bob.wait(state, lambda now: now.settled and now.newest_verdict)
    yield server, alice, bob, admin
    for each in (alice, bob, admin):
        each.close()
    server.kill()


def test_conflicts_are_not_for_clients(contradicted) -> None:
    """Who contradicts whom is for observers and admins; deciding, for admins."""
    _, alice, _, _ = contradicted
    for call, request in (
        (alice.operations.ListConflicts, pb.ListConflictsRequest()),
        (alice.operations.DecideConflict, pb.DecideConflictRequest(slot=bytes(32), keep="alice")),
        (alice.operations.SetKeyCheck, pb.SetKeyCheckRequest(key_check=NEXT.check)),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(request)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_what_cannot_be_decided(contradicted) -> None:
    """No such conflict, nobody's edit, no name of a slot: refused by name, and nothing has changed."""
    server, _, _, admin = contradicted
    before = asked(server, "conflicts")
    with pytest.raises(UsageError, match="no conflict whose slot begins with"):
        asked(server, "conflicts", "decide", claim("Bo", "Oslo").slot.hex(), "--keep", "alice")
    with pytest.raises(CollabEditError, match="dora"):
        asked(server, "conflicts", "decide", before["conflicts"][0]["slot"], "--keep", "dora")
    with pytest.raises(UsageError, match="for whom"):
        asked(server, "conflicts", "decide", "ab")
    with pytest.raises(UsageError, match="takes no SLOT"):
        asked(server, "conflicts", "list", "ab")
    for slot, code in ((b"short", "INVALID_ARGUMENT"), (bytes(32), "NOT_FOUND")):
        with pytest.raises(grpc.RpcError) as caught:
            admin.operations.DecideConflict(pb.DecideConflictRequest(slot=slot, keep="alice"))
        assert caught.value.code().name == code
    assert asked(server, "conflicts") == before


def test_a_conflict_is_decided_however_many_came_after_it(monkeypatch):
    """The server lists the newest ones: what `--undecided` shows is found also where it is none of these."""
    old, new = (pb.Conflict(slot=bytes([each] * 32), round=each) for each in (1, 2))
    decided: list[bytes] = []

    class Connection:
        def __init__(self, *_: object) -> None:
            self.channel = grpc.insecure_channel("localhost:1")

        def __enter__(self):
            return self

        def __exit__(self, *_: object) -> None:
            self.channel.close()

        def call(self, _: object, request, **__: object) -> pb.ListConflictsReply:
            if isinstance(request, pb.ListConflictsRequest):
                return pb.ListConflictsReply(conflicts=[old if request.undecided else new])
            decided.append(request.slot)
            return pb.ListConflictsReply(conflicts=[old])

    monkeypatch.setattr("collabedit.cli.conflicts.open_connection", Connection)
    for slot in ("0101", "0202"):
        words = ["conflicts", "decide", slot, "--keep", "alice", "--insecure"]
        assert CliRunner().invoke(collab, words, catch_exceptions=False).exit_code == 0
    assert decided == [old.slot, new.slot]


def test_conflicts_are_listed_and_decided(contradicted) -> None:
    """By a beginning of the slot; the decision is told to both parties and stays after the server was killed."""
    server, alice, bob, _ = contradicted
    (found,) = asked(server, "conflicts", "--undecided")["conflicts"]
    slot = claim("Ada", "Rome").slot.hex()
    assert (found["slot"], found["kept"], found["policy"]) == (slot, None, "manual")
    verdicts = [(who["client"], who["verdict"]) for who in found["claimants"]]
    assert verdicts == [("alice", "undecided"), ("bob", "undecided")]
    assert found["claimants"][0]["fact"] == claim("Ada", "Rome").fact.hex()
    assert asked(server, "status")["undecided"] == 1
    told = shown(server, "status")
    assert "1 conflict, until an admin decides" in told
    assert "detection" in told
    assert "pre-merge" in told
    assert "conflicts are settled" in server.log()
    for _ in range(2):
        decided = asked(server, "conflicts", "decide", slot[:6].upper(), "--keep", "bob")
        assert (decided["slot"], decided["kept"]) == (slot, "bob")
    server.kill()
    server.start()
    assert asked(server, "conflicts", "--undecided") == {"conflicts": []}
    assert shown(server, "conflicts", "--undecided") == "no conflict waits for a decision\n"
    (kept,) = asked(server, "conflicts")["conflicts"]
    assert {who["client"]: who["verdict"] for who in kept["claimants"]} == {"alice": "yield", "bob": "keep"}
    assert slot[:12] in shown(server, "conflicts")
    assert asked(server, "status")["undecided"] == 0
    for party, kind in ((alice, pb.VERDICT_KIND_YIELD), (bob, pb.VERDICT_KIND_KEEP)):
        told = party.federation.ListVerdicts(pb.ListVerdictsRequest()).verdicts
        assert (told[-1].kind, told[-1].policy) == (kind, "manual")


def test_a_key_that_was_announced_counts(contradicted) -> None:
    """Until then the first one seen; who has another is refused by name, before and after."""
    server, alice, bob, _ = contradicted
    assert_refused(bob, NEXT)
    for _ in range(2):
        assert asked(server, "pki", "federation-key", "announce", NEXT.check) == {"check": NEXT.check}
    enter(bob, [claim("Bo", "Rome", NEXT)], NEXT)
    assert_refused(alice, KEY)
    noted = [row["object"] for row in asked(server, "audit", "list")["rows"] if row["what"] == "announce key"]
    assert noted == [NEXT.check] * 2
    with pytest.raises(CollabEditError, match="check"):
        asked(server, "pki", "federation-key", "announce", "2:abc")


def assert_refused(party, key: FederationKey) -> None:
    """By the name that programs go by, with both checks."""
    with pytest.raises(grpc.RpcError) as caught:
        enter(party, [claim("Ada", "Rome", key)], key)
    assert ("collabedit-error", "federation-key") in caught.value.trailing_metadata()
    assert KEY.check in caught.value.details()
    assert NEXT.check in caught.value.details()


def test_retention_is_told_by_version(servers, parties) -> None:
    """The clients' counts added up, a warning where they fall, in the log once; everybody may ask."""
    server = servers("--min-edits", "1", "--quorum", "2")
    server.start()
    members = parties(server, "alice", "bob")
    assert asked(server, "retention") == {"versions": [], "warning": None}
    assert "nothing has been told so far" in shown(server, "retention")
    for counts in ((100, 98), (200, 150), (300, 200)):
        states = [party.enter() for party in members]
        publish(members, states)
        report(members, *counts)
    told = asked(server, "retention")
    assert [(each["version"], each["clients"], each["tested"], each["held"]) for each in told["versions"]] == [
        (1, 2, 200, 196),
        (2, 2, 400, 300),
        (3, 2, 600, 400),
    ]
    assert "from 98.0% on version 1 to 66.7% on version 3" in told["warning"]
    assert f"warning: {told['warning']}" in shown(server, "retention", "--limit", 1)
    assert asked(server, "retention", "--limit", 1)["versions"] == told["versions"][-1:]
    assert asked(server, "status")["retention"] == {**told["versions"][-1], "warning": told["warning"]}
    assert members[0].operations.GetRetention(pb.GetRetentionRequest()).warning == told["warning"]
    said = [line for line in server.log().splitlines() if "retention fell" in line]
    assert ["version=2" in said[0], "version=3" in said[1], len(said)] == [True, True, 2]


def publish(members, states) -> None:
    """All members contribute until the round is published."""
    from together import to_the_end

    to_the_end(members, states)


def report(members, tested: int, held: int) -> None:
    """Every member tells the same counts of the newest version, twice: the first counts."""
    for party in members:
        state = party.join().round
        for more in (0, 1):
            party.federation.Report(
                pb.ReportRequest(round=state.round, version=state.base_version, tested=tested, held=held - more)
            )
