"""Edits that contradict each other, found after a merge: daemons on the bundled model, two rounds."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from collabedit.client.state import ClientState
from collabedit.client.state_folder import StateFolder
from collabedit.common.edits import Edit
from collabedit.common.model_folder import find_model
from collabedit.experiments.bundled import party_edits
from collabedit.experiments.data.conflicts import Ranges

NAMES = ("ada", "bob", "cyd")
CONTESTED, OWN, LATER = 6, 4, 4

pytestmark = pytest.mark.slow


def planted() -> list[list[Edit]]:
    """Each party's edits: of the contested facts each says something else, the rest are its own.

    Those who come after the first have some more for later, so that there is a quorum when it sends its own again.
    """
    atlas = find_model("atlas")
    ranges = Ranges.of([edit for own in party_edits(atlas, 10) for edit in own])
    first, *others = party_edits(atlas, 3)
    contested = first[:CONTESTED]
    parties = [list(first[: CONTESTED + OWN])]
    for number, own in enumerate(others):
        contrary = [edit.model_copy(update={"target_new": ranges.others(edit)[number]}) for edit in contested]
        parties.append([*contrary, *own[: OWN + LATER]])
    return parties


@dataclass(frozen=True)
class Live:
    """Two rounds of a federation, and what the daemons have said of them."""

    parties: list[list[Edit]]
    reports: dict[str, dict]
    states: dict[str, Path]
    conflicts: list[dict]

    def row(self, name: str, number: int) -> dict:
        """What a party's report file says of its edit of a contested fact."""
        key = self.parties[NAMES.index(name)][number].key
        return next(each for each in self.reports[name]["edits"] if each["key"] == key)

    def life(self, name: str, number: int) -> list[str]:
        """The states that edit has been in."""
        with ClientState(StateFolder(self.states[name]).ledger) as state:
            return [each.status.value for each in state.life(self.parties[NAMES.index(name)][number].key)]

    @property
    def judged(self) -> dict[int, list[str]]:
        """Contested facts of which several parties' edits failed in round 1: these parties, who entered first first."""
        failed = {n: [name for name in NAMES if "failed" in self.life(name, n)] for n in range(CONTESTED)}
        return {number: names for number, names in failed.items() if len(names) > 1}


@pytest.fixture(scope="module")
def live(tools, host_of, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The parties enter one after the other; when the conflicts have been judged, those who lost go on with others."""
    folder = tmp_path_factory.mktemp("failed")
    parties = planted()
    with contextlib.closing(host_of(folder, find_model("atlas").path)) as host:
        flags = ("--detection", "on-failure", "--quorum", "3", "--entry-window", "0", "--min-edits", "3")
        _, address = host.server(*flags)
        key = folder / "key.json"
        assert host.start(tools.BIN / "collab", "pki", "federation-key", "make", "--out", key).end() == 0
        clients = {}
        for name, own in zip(NAMES, parties, strict=True):
            edits = tools.write_edits(folder / f"{name}.jsonl", own[: CONTESTED + OWN])
            more = ("--federation-key", key, "--report", folder / f"{name}.json")
            clients[name] = host.client(name, address, edits, *more)
            clients[name].wait_for("round 1: entered with")
        for name, own in zip(NAMES, parties, strict=True):
            clients[name].wait_for("(policy first-come): ")
            tools.write_edits(folder / f"{name}.jsonl", own[CONTESTED + OWN :], "a")
        for each in clients.values():
            each.wait_for("round 2 published as version 2")
        asking = host.start(tools.BIN / "collab", "conflicts", "--insecure", "--server", address, "--json")
        assert asking.end() == 0, asking.said
        reports = {name: json.loads((folder / f"{name}.json").read_text()) for name in NAMES}
        states = {name: folder / name for name in NAMES}
        yield Live(parties, reports, states, json.loads("\n".join(asking.out))["conflicts"])


def test_what_failed_with_several_parties_is_judged_and_nothing_else(live: Live) -> None:
    """All that were planted, and no other: the model answers with one party's object at most, so two have failed."""
    assert len(live.judged) == CONTESTED
    assert len(live.conflicts) == len(live.judged)
    assert {each["kept"] for each in live.conflicts} == {names[0] for names in live.judged.values()}


def test_the_winner_sends_its_edit_again_in_more_ways_and_it_is_on_top(live: Live) -> None:
    """In round 2, with its paraphrases: the model then answers with the winner's object."""
    for number, (winner, *_) in live.judged.items():
        assert live.life(winner, number) == [
            "pending", "entered", "merged", "failed", "re-submitted", "entered", "merged", "verified",
        ]  # fmt: skip
        row = live.row(winner, number)
        assert (row["status"], row["round"], row["augmented"]) == ("verified", 2, True)
        assert row["scores"]["correct"] == 1.0


def test_the_losers_edits_are_withdrawn_and_they_are_told_why(live: Live) -> None:
    """And come no more, though the file holds their lines."""
    for number, (_, *losers) in live.judged.items():
        for loser in losers:
            row = live.row(loser, number)
            assert (row["status"], row["present"]) == ("withdrawn", True)
            assert row["reason"] == "round 2: another party's edit of the same fact is kept (policy first-come)"


def test_edits_that_nobody_contests_hold(live: Live) -> None:
    """Of both rounds: no bystander is judged."""
    for name, own in zip(NAMES, live.parties, strict=True):
        for number in range(CONTESTED, len(own)):
            row = live.row(name, number)
            assert row["round"] == (1 if number < CONTESTED + OWN else 2)
            assert row["status"] in ("verified", "failed")
            assert "another party" not in row["reason"]
