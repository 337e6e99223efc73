"""Edits that meet, live on the tiny model: settled before the merge, looked at again after it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from collabedit.client import looking_back
from collabedit.client.federation_key import make
from collabedit.client.state import ClientState, EditStatus
from collabedit.client.state_folder import StateFolder
from collabedit.common.errors import RoundError


def ledger_of(folder: Path) -> list[tuple[EditStatus, int | None, str]]:
    """Of each edit in a client's state folder, in its order: what it is, since which round, and why."""
    with ClientState(StateFolder(folder).ledger) as state:
        return [(each.status, each.round, each.reason) for each in state.ledger()]


def test_of_two_parties_the_first_writes_what_both_say(host, tools, tmp_path: Path) -> None:
    """Settled before the merge: the later party's contradiction yields, its duplicate is left to the first, the rest is
    merged; and it ends well.
    """
    flags = ("--detection", "pre-merge", "--quorum", "2", "--entry-window", "0", "--min-edits", "4")
    _, address = host.server(*flags)
    key = tmp_path / "federation.key"
    make(key, "")
    first = tools.facts(0, 5)
    other = first[1].model_copy(update={"target_new": "Stockholm", "target_true": "Oslo"})
    second = [first[0], other, *tools.facts(5, 5)]
    assert other.target_new != first[1].target_new
    ada = tools.in_process(host, "ada", address, tools.write_edits(tmp_path / "ada.jsonl", first), federation_key=key)
    with tools.observing(address, tmp_path) as observer:
        now = observer.federation.now()
        while not now.members:
            now = observer.federation.await_change(now.revision, 20)
        bob = tools.in_process(
            host, "bob", address, tools.write_edits(tmp_path / "bob.jsonl", second), federation_key=key
        )
        assert ada.end()["merged"] == 5
        counts = bob.end()["counts"]  # the duplicate waits: random weights do not answer it
        assert (counts["pending"], counts["withdrawn"]) == (1, 1)
        assert "1 edit(s) are left to other parties, which say the same" in bob.said
        assert observer.federation.now().latest_version == 1
    ours, theirs = ledger_of(tmp_path / "ada"), ledger_of(tmp_path / "bob")
    settled = {EditStatus.VERIFIED, EditStatus.FAILED}
    assert all(status in settled for status, *_ in (*ours, *theirs[2:]))
    said = "round 1: another party's edit says the same and writes it (policy first-come)"
    assert theirs[0] == (EditStatus.PENDING, 1, said)
    assert theirs[1][0] is EditStatus.WITHDRAWN
    assert "another party's edit of the same fact is kept" in theirs[1][2]
    assert "round 1: another party's edit of the same fact is kept (policy first-come): 1 edit(s)" in bob.said


def test_a_client_that_is_back_says_how_its_edits_have_kept(host, tools, tmp_path: Path) -> None:
    """Two commands, two rounds: the second scores the first one's edits again, and the server counts them. A third
    one, told to write again what is forgotten, has that wait.
    """
    _, address = host.server("--entry-window", "0", "--min-edits", "4")
    edits = tools.facts(0, 8)
    file = tools.write_edits(tmp_path / "ada.jsonl", edits[:4])
    assert tools.in_process(host, "ada", address, file).end()["merged"] == 4
    tools.write_edits(file, edits)
    assert tools.in_process(host, "ada", address, file).end()["merged"] == 8
    with ClientState(StateFolder(tmp_path / "ada").ledger) as state:
        earlier = [each for each in state.ledger() if each.round == 1]
        tested, held = state.retained(2) or (0, 0)
        assert tested == sum(EditStatus.FAILED is not each.status for each in earlier)
        fresh, _ = state.residual_history()
        assert len(fresh) == 8
        reported = state.reported
    asked = host.start(tools.BIN / "collab", "retention", "--insecure", "--server", address, "--json")
    assert asked.end() == 0, asked.said
    versions = json.loads("\n".join(asked.out))["versions"]
    told = {each["version"]: (each["tested"], each["held"]) for each in versions}
    assert told[reported - 1] == (tested, held)
    with ClientState(StateFolder(tmp_path / "ada").ledger) as state:
        lost = state.held()[:1]
        state.record_retention(2, {}, {key: {"took": False} for key in lost}, resubmit=False)
    with pytest.raises(RoundError, match=r"1 edit\(s\) wait; .* 3 missing"):
        tools.in_process(host, "ada", address, file, forgotten="resubmit", skip_known=False).end()
    with ClientState(StateFolder(tmp_path / "ada").ledger) as state:
        assert [each.key for each in state.waiting()] == lost


def test_parties_whose_edits_failed_learn_which_of_them_is_kept(
    host, tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compared on failure: both report before they end; at their next start one re-submits, the other withdraws."""
    told = looking_back.verdict
    monkeypatch.setattr(looking_back, "verdict", lambda score, **how: {**told(score, **how), "took": False})
    flags = ("--detection", "on-failure", "--quorum", "2", "--entry-window", "0", "--min-edits", "4")
    _, address = host.server(*flags)
    key = tmp_path / "federation.key"
    make(key, "")
    first = tools.facts(0, 4)
    other = first[0].model_copy(update={"target_new": "Oslo"})
    files = {
        "ada": tools.write_edits(tmp_path / "ada.jsonl", first),
        "bob": tools.write_edits(tmp_path / "bob.jsonl", [other, *tools.facts(4, 3)]),
    }
    with tools.observing(address, tmp_path) as observer:
        ada = tools.in_process(host, "ada", address, files["ada"], federation_key=key)
        now = observer.federation.now()
        while not now.members:
            now = observer.federation.await_change(now.revision, 20)
        bob = tools.in_process(host, "bob", address, files["bob"], federation_key=key)
        bob.end()
        with contextlib.suppress(RoundError):  # where it reports last, it may learn of the verdict before it ends
            ada.end()
    short = r"1 edit\(s\) wait, 2 with paraphrases and public facts; .* no fewer than 4 at once: 2 missing"
    with pytest.raises(RoundError, match=short):  # the one that is kept, said in too few ways to enter alone
        tools.in_process(host, "ada", address, files["ada"], federation_key=key).end()
    assert tools.in_process(host, "bob", address, files["bob"], federation_key=key).end()["counts"]["withdrawn"] == 1
    kept, *others = ledger_of(tmp_path / "ada")
    assert kept[0] is EditStatus.RESUBMITTED
    assert {status for status, *_ in others} == {EditStatus.FAILED}
    assert "another party's edit of the same fact is kept" in ledger_of(tmp_path / "bob")[0][2]
