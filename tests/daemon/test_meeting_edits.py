"""Three parties whose edits meet, live: real processes on the bundled model, with overlaps and conflicts planted."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from collabedit.client.loading import load_model
from collabedit.client.memit import global_edit
from collabedit.common.covariance_file import CovarianceFile
from collabedit.common.edits import Edit
from collabedit.common.model_folder import ModelFolder, find_model
from collabedit.common.prior import Prior
from collabedit.experiments.bundled import party_edits
from collabedit.experiments.data import Dealt, Pair, deal

NAMES = ("ada", "bob", "cyd")
EACH = 24
OVERLAP, CONFLICT = 0.2, 0.1  # of all 72 edits: 7 pairs say the same, 3 contradict each other
MERGED = ("verified", "failed")

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Live:
    """A federation that has settled what met: who had which edits, and what each client said of them at its end."""

    dealt: Dealt
    results: dict[str, dict]
    states: dict[str, Path]
    address: str
    conflicts: dict

    def row(self, party: int, edit: Edit) -> dict:
        """What became of one party's edit."""
        return next(each for each in self.results[NAMES[party]]["edits"] if each["key"] == edit.key)

    def rows(self, pair: Pair) -> tuple[dict, dict]:
        """What became of a pair, the edit of the party that came first at first."""
        first, second = sorted((pair.first, pair.second))
        return self.row(first.party, self.dealt.at(first)), self.row(second.party, self.dealt.at(second))


@pytest.fixture(scope="module")
def atlas() -> ModelFolder:
    """The bundled model, which knows its world."""
    return find_model("atlas")


def planted(atlas: ModelFolder) -> Dealt:
    """The bundled edits of ten parties, dealt anew to three with overlaps and conflicts."""
    pool = [edit for own in party_edits(atlas, 10) for edit in own]
    return deal(pool, len(NAMES), EACH, overlap=OVERLAP, conflict=CONFLICT, seed=4)


@pytest.fixture(scope="module")
def live(tools, host_of, atlas: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One round, first come first kept: the parties enter one after the other."""
    folder = tmp_path_factory.mktemp("meeting")
    dealt = planted(atlas)
    with contextlib.closing(host_of(folder, atlas.path)) as host:
        flags = ("--detection", "pre-merge", "--conflict-policy", "first-come", "--quorum", "3", "--entry-window", "0")
        _, address = host.server(*flags)
        key = folder / "key.json"
        assert host.start(tools.BIN / "collab", "pki", "federation-key", "make", "--out", key).end() == 0
        public = tools.write_edits(folder / "public.jsonl", [edit for own in party_edits(atlas, 3) for edit in own])
        clients = {}
        for name, own in zip(NAMES, dealt.parties, strict=True):
            edits = tools.write_edits(folder / f"{name}.jsonl", own)
            more = ("--federation-key", key, "--padding", public, "--once", "--json")
            clients[name] = host.client(name, address, edits, *more)
            clients[name].wait_for("round 1: entered with")
        for each in clients.values():
            assert each.end() == 0, each.said
        results = {name: json.loads("\n".join(each.out)) for name, each in clients.items()}
        asking = ("conflicts", "--insecure", "--server", address, "--json")
        listing = host.start(tools.BIN / "collab", *asking)
        assert listing.end() == 0, listing.said
        states = {name: folder / name for name in NAMES}
        yield Live(dealt, results, states, address, json.loads("\n".join(listing.out)))


def test_of_two_that_contradict_the_first_is_merged_and_the_other_told(live: Live) -> None:
    """Each planted conflict: who came first has its edit in round 1, the other's is withdrawn and says why."""
    assert len(live.dealt.conflicts) == 3
    for pair in live.dealt.conflicts:
        kept, lost = live.rows(pair)
        assert (kept["status"] in MERGED, kept["round"]) == (True, 1)
        assert lost["status"] == "withdrawn"
        assert "another party's edit of the same fact is kept (policy first-come)" in lost["reason"]


def test_what_two_say_alike_is_merged_once_and_known_to_the_other(live: Live) -> None:
    """Each planted overlap: one party writes it, and the other finds it in the new weights without editing."""
    assert len(live.dealt.overlaps) == 7
    states = [live.rows(pair) for pair in live.dealt.overlaps]
    assert all(written["round"] == 1 and written["status"] in MERGED for written, _ in states)
    known = [left["status"] == "already-known" for _, left in states]
    again = [left["status"] in MERGED and left["round"] > 1 for _, left in states]
    assert all(one or other for one, other in zip(known, again, strict=True))
    assert sum(known) >= 5  # what did not take with its writer is edited again


def test_none_is_invented(live: Live) -> None:
    """No bystander's edit was judged, and the server knows of as many conflicts as were planted."""
    for place in live.dealt.bystanders:
        row = live.row(place.party, live.dealt.at(place))
        assert (row["status"] in MERGED, row["round"]) == (True, 1)
        assert "another party" not in row["reason"]
    assert len(live.conflicts["conflicts"]) == len(live.dealt.conflicts)


def test_bystanders_have_what_one_party_with_the_settled_edits_would_have(live: Live, tools, tmp_path: Path) -> None:
    """The published weights are those of one party that holds every kept edit once: nobody's edit is harmed."""
    loaded = load_model(find_model("atlas"))
    merged = [
        [edit for edit in own if (row := live.row(party, edit))["round"] == 1 and row["status"] in MERGED]
        for party, own in enumerate(live.dealt.parties)
    ]
    targets = tools.kept_targets(loaded, [live.states[name] for name in NAMES], merged)
    folder = loaded.folder
    covariance = CovarianceFile.open(folder.covariance)
    weight = folder.preset.mom2_update_weight
    priors = {name: Prior(covariance.mean(name), weight) for name in covariance.weights}
    union = [edit for own in merged for edit in own]
    updates = global_edit(loaded, union, targets, folder.preset, folder.context_templates, priors)
    with tools.observing(live.address, tmp_path) as observer:
        assert tools.relative_error(loaded, observer.weights(1), updates) <= 1e-6
