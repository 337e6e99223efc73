"""Claims that meet: a server process that is killed at every turn, and light parties that speak the real protocol."""

from __future__ import annotations

import hashlib

import grpc
import pytest
from together import to_the_end

from collabedit.v1 import federation_pb2 as pb

NAMES = ("arosa", "bern", "chur")
EDITS = 10  # of each party
KEY, OTHER = "1:" + "ab" * 16, "1:" + "cd" * 16
MANUAL = ("--conflict-policy", "manual")


def claim(slot: str, fact: str) -> tuple[bytes, bytes]:
    """Blinded names, as good as real ones."""
    slot_name, fact_name = (hashlib.sha256(each.encode()).digest() for each in (slot, slot + fact))
    return slot_name, fact_name


FRENCH, ENGLISH, ALIKE = claim("danielle", "french"), claim("danielle", "english"), claim("vinson", "antarctica")
OWN = {name: claim(name, "own") for name in NAMES}
CLAIMS = {"arosa": [FRENCH, ALIKE], "bern": [ENGLISH, ALIKE], "chur": [FRENCH]}


def restarted(server, *flags: str):
    """The server, killed and started with other flags."""
    server.kill()
    server.flags = (*server.flags, *flags)
    return server.start()


def settled(server, members) -> list[pb.RoundState]:
    """All enter while others still may; then the server is killed, and the next one waits for nobody."""
    for each in members:
        each.enter([*CLAIMS[each.client], OWN[each.client]], KEY)
    restarted(server, "--entry-window", "0")
    return [each.wait(each.join(check=KEY).round, lambda now: now.settled) for each in members]


def kinds(party, after: int = 0) -> dict[bytes, str]:
    """What was decided, by fact; the last word on each."""
    return {each.claim.fact: pb.VerdictKind.Name(each.kind)[13:] for each in party.verdicts(after)}


def expect_refused(call, name: str, why: str) -> None:
    """The call is refused by this name, with this reason."""
    with pytest.raises(grpc.RpcError) as refused:
        call()
    assert dict(refused.value.trailing_metadata()).get("collabedit-error", "") == name
    assert why in refused.value.details()


POLICIES = [
    (("--conflict-policy", "first-come"), ("KEEP", "YIELD", "DUPLICATE")),
    (("--conflict-policy", "last-come"), ("DUPLICATE", "YIELD", "KEEP")),
    (("--conflict-policy", "priority", "--priority", "bern"), ("YIELD", "KEEP", "YIELD")),
]


@pytest.mark.parametrize(("flags", "told"), POLICIES, ids=[each[0][1] for each in POLICIES])
def test_claims_are_settled_before_a_round_merges(servers, parties, flags, told):
    """Every contradiction and overlap that there is, and no other, by a server that was killed since they came."""
    server = servers("--quorum", "3", "--detection", "pre-merge", "--entry-window", "3600", *flags).start()
    members = parties(server, *NAMES)
    states = settled(server, members)
    expected = [{FRENCH[1]: told[0]}, {ENGLISH[1]: told[1], ALIKE[1]: "DUPLICATE"}, {FRENCH[1]: told[2]}]
    assert [kinds(each) for each in members] == expected
    assert [state.newest_verdict for state in states] == [each.verdicts()[-1].number for each in members]
    assert {each.policy for each in members[1].verdicts()} == {flags[1]}
    (admin,) = parties(server, "admin")
    found = {each.client_id: each.edits for each in admin.operations.GetRound(pb.GetRoundRequest(round=1)).members}
    kept = [EDITS - sum(kind != "KEEP" for kind in each.values()) for each in expected]
    assert found == dict(zip(NAMES, kept, strict=True))


def test_nothing_counts_before_it_is_settled(servers, parties):
    """A contribution that comes sooner is refused, and taken afterwards; who enters then yields."""
    server = servers("--quorum", "1", "--detection", "pre-merge", "--entry-window", "3600").start()
    arosa, bern = parties(server, "arosa", "bern")
    state = arosa.enter([FRENCH], KEY)
    assert not state.settled
    expect_refused(lambda: arosa.contribute(state), "stale-round", "not settled yet")
    restarted(server, "--entry-window", "0")
    state = arosa.wait(arosa.join(check=KEY).round, lambda now: now.settled)
    late = bern.enter([ENGLISH, ALIKE], KEY)
    assert late.settled
    assert (kinds(bern), kinds(arosa)) == ({ENGLISH[1]: "YIELD"}, {})
    to_the_end([arosa, bern], [state, late])
    bern.enter([ENGLISH], KEY)
    bern.finish(bern.wait(bern.join(check=KEY).round, lambda now: now.settled))
    assert [(each.round, each.kind) for each in arosa.verdicts()] == [(2, pb.VERDICT_KIND_OVERWRITTEN)]
    assert arosa.join(check=KEY).round.newest_verdict == arosa.verdicts()[-1].number


def test_an_admin_decides_and_a_kill_between_changes_nothing(servers, parties):
    """None of the edits is merged; the decision reaches all in the round after, and holds where they come again."""
    server = servers("--quorum", "3", "--detection", "pre-merge", "--entry-window", "3600", *MANUAL).start()
    members = parties(server, *NAMES)
    states = settled(server, members)
    arosa, bern, chur = members
    undecided = {FRENCH[1]: "UNDECIDED"}
    assert [kinds(arosa), kinds(chur)] == [undecided, undecided]
    assert kinds(bern) == {ENGLISH[1]: "UNDECIDED", ALIKE[1]: "DUPLICATE"}
    given = [each.verdicts() for each in members]
    restarted(server)
    assert [each.verdicts() for each in members] == given
    to_the_end(members, states)
    (admin,) = parties(server, "admin")
    decide = pb.DecideConflictRequest(slot=FRENCH[0], keep="arosa")
    admin.operations.DecideConflict(decide)
    restarted(server)
    admin.operations.DecideConflict(decide)
    after = [state.newest_verdict for state in states]
    told = [kinds(each, last) for each, last in zip(members, after, strict=True)]
    assert told == [{FRENCH[1]: "KEEP"}, {ENGLISH[1]: "YIELD"}, {FRENCH[1]: "DUPLICATE"}]
    assert [each.join(check=KEY).round.newest_verdict for each in members] == [
        each.verdicts()[-1].number for each in members
    ]
    before = [each.verdicts()[-1].number for each in members]
    for each in reversed(members):
        each.enter(CLAIMS[each.client], KEY)
    for each in members:
        each.wait(each.join(check=KEY).round, lambda now: now.settled)
    assert kinds(bern, before[1])[ENGLISH[1]] == "YIELD"


def report(party, **said) -> pb.RoundState:
    """Reports to the round under way."""
    state = party.join(check=KEY).round
    failed = [pb.Claim(slot=slot, fact=fact) for slot, fact in said.pop("failed", ())]
    request = pb.ReportRequest(round=state.round, version=state.base_version, failed=failed, key_check=KEY, **said)
    return party.federation.Report(request)


def test_what_failed_is_settled_once_all_have_told(servers, parties):
    """In the order in which they entered; killed between any two reports, and before and after the last."""
    server = servers("--quorum", "3", "--detection", "on-failure").start()
    members = parties(server, *NAMES)
    to_the_end(members, [each.enter(check=KEY) for each in members])
    arosa, bern, chur = members
    report(chur, tested=10, held=9, failed=[FRENCH])
    restarted(server)
    report(bern, tested=10, held=8, failed=[ENGLISH, ALIKE])
    report(bern, tested=10, held=0)
    assert [kinds(each) for each in members] == [{}, {}, {}]
    restarted(server)
    state = report(arosa, tested=10, held=9, failed=[FRENCH])
    assert state.newest_verdict
    restarted(server)
    assert [kinds(each) for each in members] == [{FRENCH[1]: "KEEP"}, {ENGLISH[1]: "YIELD"}, {FRENCH[1]: "DUPLICATE"}]
    (admin,) = parties(server, "admin")
    retention = admin.operations.GetRetention(pb.GetRetentionRequest()).versions
    assert [(each.version, each.clients, each.tested, each.held) for each in retention] == [(1, 3, 30, 26)]
    stale = pb.ReportRequest(round=1, version=0)
    expect_refused(lambda: arosa.federation.Report(stale), "stale-round", "round 1 is not under way")
    other = pb.ReportRequest(round=2, version=0)
    expect_refused(lambda: parties(server, "zug")[0].federation.Report(other), "stale-version", "stands on version 1")


def test_claims_need_one_key(servers, parties):
    """The first check counts, also after a restart, until an admin says another; none is none."""
    server = servers("--detection", "pre-merge", "--quorum", "2", "--max-claims", "2").start()
    arosa, bern, admin = parties(server, "arosa", "bern", "admin")
    expect_refused(arosa.join, "federation-key", "arosa has no federation key")
    expect_refused(lambda: arosa.join(check="1:short"), "", "no check of a federation key")
    arosa.join(check=KEY)
    restarted(server)
    why = f"bern has federation key {OTHER}, the others have {KEY}"
    expect_refused(lambda: bern.join(check=OTHER), "federation-key", why)
    expect_refused(lambda: bern.join(check=OTHER), "federation-key", f"pki federation-key announce {OTHER}")
    admin.join()
    admin.operations.SetKeyCheck(pb.SetKeyCheckRequest(key_check=OTHER))
    bern.join(check=OTHER)
    state = arosa.join(check=OTHER).round
    unsaid = pb.EnterRequest(round=state.round, edits=1, claims=[pb.Claim(slot=FRENCH[0], fact=FRENCH[1])])
    expect_refused(lambda: arosa.federation.Enter(unsaid), "federation-key", "no federation key")
    bad = [
        (pb.EnterRequest(round=1, edits=1, claims=[pb.Claim(slot=b"short", fact=b"")], key_check=OTHER), "32 bytes"),
        (pb.EnterRequest(round=1, edits=1, claims=[pb.Claim(), pb.Claim()], key_check=OTHER), "can be 1"),
    ]
    for request, why in bad:
        expect_refused(lambda request=request: arosa.federation.Enter(request), "", why)
    many = [pb.Claim(slot=slot, fact=fact) for slot, fact in (FRENCH, ENGLISH, ALIKE)]
    guessing = pb.EnterRequest(round=1, edits=3, claims=many, key_check=OTHER)
    expect_refused(
        lambda: arosa.federation.Enter(guessing), "", "arosa claims 3 facts in round 1, and the server takes 2"
    )
    failed = pb.ReportRequest(round=1, failed=[pb.Claim(slot=FRENCH[0], fact=FRENCH[1])], key_check=OTHER)
    expect_refused(lambda: arosa.federation.Report(failed), "", "1 claims where there can be 0")
    more = pb.ReportRequest(round=1, tested=1, held=2)
    expect_refused(lambda: arosa.federation.Report(more), "", "2 edits hold of 1")


def test_a_federation_without_detection_asks_for_no_key_and_takes_no_claims(shared_server, parties):
    """It is settled at all times; retention is told all the same."""
    (party,) = parties(shared_server, "arosa")
    state = party.enter()
    assert state.settled
    assert "detection" not in party.settings
    claimed = pb.EnterRequest(round=state.round, edits=1, claims=[pb.Claim(slot=FRENCH[0], fact=FRENCH[1])])
    expect_refused(lambda: party.federation.Enter(claimed), "", "1 claims where there can be 0")
    said = party.federation.Report(pb.ReportRequest(round=state.round, tested=4, held=3))
    assert (said.settled, said.newest_verdict) == (True, 0)
    assert party.verdicts() == []
