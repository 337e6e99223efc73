"""Who keeps its edit where three parties contradict each other, live on the tiny model, by each policy."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path

import pytest

from collabedit.client.federation_key import make
from collabedit.client.state import ClientState, EditStatus
from collabedit.client.state_folder import StateFolder
from collabedit.common.edits import Edit

MERGED = (EditStatus.VERIFIED, EditStatus.FAILED)
OBJECTS = ("Lisbon", "Turin", "Bergen")


class Meeting:
    """Parties that say different things about one fact, and have others of their own, at a server with a policy."""

    def __init__(self, host, tools, folder: Path, *flags: str) -> None:
        self.host, self.tools, self.folder = host, tools, folder
        _, self.address = host.server("--detection", "pre-merge", "--entry-window", "0", "--min-edits", "4", *flags)
        self.key = folder / "federation.key"
        make(self.key, "")
        self.contested, self.observers = tools.facts(0, 1)[0], count()

    def contrary(self, object_: str) -> Edit:
        """An edit of the contested fact."""
        return self.contested.model_copy(update={"target_new": object_, "id": object_})

    def edits(self, name: str, *edits: Edit) -> Path:
        """A party's file, with further lines."""
        return self.tools.write_edits(self.folder / f"{name}.jsonl", edits, "a")

    def client(self, name: str):
        """A client with `--once` on its file."""
        return self.tools.in_process(
            self.host, name, self.address, self.folder / f"{name}.jsonl", federation_key=self.key
        )

    def enter(self, *names: str) -> list:
        """Clients, each started when those before it are in the round."""
        started = []
        with self.tools.observing(self.address, self.folder, f"observer-{next(self.observers)}") as observer:
            now = observer.federation.now()
            for place, name in enumerate(names, start=1):
                started.append(self.client(name))
                while now.members < place and now.takes_members:
                    now = observer.federation.await_change(now.revision, 20)
        return started

    def ran(self, *command: str) -> dict:
        """The object that a command of ours prints, which has to succeed."""
        done = self.host.start(*command)
        assert done.end() == 0, done.said
        return json.loads("\n".join(done.out))

    def collab(self, *command: str) -> dict:
        """What an admin is told."""
        return self.ran(self.tools.BIN / "collab", *command, "--insecure", "--server", self.address, "--json")

    def row(self, name: str, edit: Edit) -> dict:
        """What `collab-client status` says of a party's edit."""
        said = self.ran(self.tools.BIN / "collab-client", "status", "--json", "--state", str(self.folder / name))
        return next(each for each in said["edits"] if each["key"] == edit.key)

    def statuses(self, name: str) -> dict[str, tuple[EditStatus, str]]:
        """What became of a party's edits and why, by what they write."""
        with ClientState(StateFolder(self.folder / name).ledger) as state:
            return {each.edit.id: (each.status, each.reason) for each in state.ledger()}


POLICIES = [
    (("--conflict-policy", "last-come"), "cyd"),
    (("--conflict-policy", "priority", "--priority", "bob"), "bob"),
]


@pytest.mark.parametrize(("flags", "winner"), POLICIES, ids=["last-come", "priority"])
def test_the_policy_picks_whose_edit_is_merged(host, tools, tmp_path: Path, flags, winner) -> None:
    """Three parties enter one after the other, and the round waits for all: it is not the first that is kept."""
    meeting = Meeting(host, tools, tmp_path, "--quorum", "3", *flags)
    for number, (name, object_) in enumerate(zip(tools.PARTIES, OBJECTS, strict=True)):
        meeting.edits(name, meeting.contrary(object_), *tools.facts(1 + 4 * number, 4))
    for client in meeting.enter(*tools.PARTIES):
        client.end()
    for name, object_ in zip(tools.PARTIES, OBJECTS, strict=True):
        said = meeting.statuses(name)
        status, reason = said.pop(object_)
        if name == winner:
            assert status in MERGED
        else:
            assert status is EditStatus.WITHDRAWN
            assert f"another party's edit of the same fact is kept (policy {flags[1]})" in reason
        assert {status for status, _ in said.values()} <= set(MERGED), "a bystander"


@pytest.mark.slow
def test_an_admin_decides_by_a_command_and_the_parties_do_it_in_the_next_round(host, tools, tmp_path: Path) -> None:
    """Until then neither edit is merged and both parties are told to wait; then one is withdrawn, the other merged."""
    meeting = Meeting(host, tools, tmp_path, "--quorum", "2", "--conflict-policy", "manual")
    ours, theirs = map(meeting.contrary, OBJECTS[:2])
    meeting.edits("ada", ours, *tools.facts(1, 4))
    meeting.edits("bob", theirs, *tools.facts(5, 4))
    for client in meeting.enter("ada", "bob"):
        client.end()
    for name, object_ in zip(("ada", "bob"), OBJECTS, strict=False):
        status, reason = meeting.statuses(name)[object_]
        assert (status, "an admin of the federation decides" in reason) == (EditStatus.IN_CONFLICT, True)
    (conflict,) = meeting.collab("conflicts", "--undecided")["conflicts"]
    assert [each["client"] for each in conflict["claimants"]] == ["ada", "bob"]
    decided = meeting.collab("conflicts", "decide", conflict["slot"][:8], "--keep", "bob")
    assert decided["kept"] == "bob"
    assert meeting.collab("conflicts", "--undecided")["conflicts"] == []
    meeting.edits("ada", *tools.facts(9, 4))
    meeting.edits("bob", *tools.facts(13, 4))
    for client in meeting.enter("ada", "bob"):
        client.end()
    lost, kept = meeting.row("ada", ours), meeting.row("bob", theirs)
    assert (lost["status"], "(policy manual)" in lost["reason"]) == ("withdrawn", True)
    assert (kept["round"], kept["augmented"]) == (2, True)
    assert EditStatus(kept["status"]) in MERGED


@pytest.mark.slow
def test_a_later_round_overwrites_and_the_earlier_owner_is_told(host, tools, tmp_path: Path) -> None:
    """Never in one round, so that nothing is settled: the later edit is merged, and the other's `status` says so."""
    meeting = Meeting(host, tools, tmp_path, "--quorum", "1")
    ours, theirs = map(meeting.contrary, OBJECTS[:2])
    meeting.edits("ada", ours, *tools.facts(1, 4))
    meeting.edits("bob", theirs, *tools.facts(5, 4))
    meeting.client("ada").end()
    assert EditStatus(meeting.row("ada", ours)["status"]) in MERGED
    meeting.client("bob").end()
    assert EditStatus(meeting.row("bob", theirs)["status"]) in MERGED
    meeting.client("ada").end()
    told = meeting.row("ada", ours)
    assert told["status"] == "in-conflict"
    assert "round 2: another party's edit of the same fact overwrote it" in told["reason"]
    others = [status for _, (status, _) in meeting.statuses("ada").items() if status is not EditStatus.IN_CONFLICT]
    assert set(others) <= {*MERGED, EditStatus.FORGOTTEN}
