"""What any store must hold to about rounds, over each kind of database alike."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import event

from collabedit.common.watched import ContributionNumbers, LayerNumbers
from collabedit.server.claims import Rule
from collabedit.server.database import open_engine
from collabedit.server.events import (
    Complete,
    Contribute,
    Damaged,
    Drop,
    Enter,
    LastLayerMerged,
    LayerMerged,
    NotPositiveDefinite,
    Report,
    Restart,
    RollBack,
    Settle,
)
from collabedit.server.rounds import LayerWeights, Past, Phase, Round, only_counts
from collabedit.server.sql_store import SqlStore
from collabedit.server.store import Recorded
from collabedit.server.transitions import advance

PAST = Past(("ka1", "ka2"), ("kb",), "arosa")
NUMBERS = LayerNumbers(
    weight="a", condition=1e6, rank=9, rank_counted=True, kkt_norm=0.1, update_norm=0.5, weight_norm=3.0, change=0.5,
    lost=1e-8, drift=0.5, contributions=(ContributionNumbers(client="arosa", kkt_norm=0.1, rank=9),),
)  # fmt: skip
NEW = Round(number=1, base_version=0, exchanges=(("a",), ("b",)), quorum=1, opened=1.0)


@pytest.fixture
def store(new_database):
    """A store over each kind of database in turn."""
    made = SqlStore(open_engine(new_database()))
    yield made
    made.close()


def life_of_a_round() -> list[Round]:
    """A round's states: two parties, one is lost in the second layer, the other goes through."""
    events = [
        Enter(at=2.0, client="bern", edits=8),
        Enter(at=3.0, client="arosa", edits=9),
        Contribute(at=4.0, client="arosa", attempt=0, layer=0, digest="a0"),
        Contribute(at=5.0, client="bern", attempt=0, layer=0, digest="b0"),
        Complete(at=6.0, late={}),
        LayerMerged(at=7.0, merged=(LayerWeights("a", "lost", Past(("lost-kkt",))),), numbers=(NUMBERS,)),
        Restart(at=8.0, reasons={"bern": "not heard of"}),
        Contribute(at=9.0, client="arosa", attempt=1, layer=0, digest="a1"),
        Complete(at=10.0, late={}),
        LayerMerged(at=11.0, merged=(LayerWeights("a", "wa", PAST),), numbers=(NUMBERS,)),
        Contribute(at=12.0, client="arosa", attempt=1, layer=1, digest="a2"),
        Complete(at=13.0, late={}),
        LastLayerMerged(
            at=14.0, merged=(LayerWeights("b", "wb"),), numbers=(NUMBERS.model_copy(update={"weight": "b"}),)
        ),
    ]
    states = [NEW]
    for each in events:
        states.append(advance(states[-1], each))
    return states


def test_a_round_is_read_as_it_was_recorded_in_every_state(store):
    """Whatever state a round is in, the store gives back the same round, and a revision that grew."""
    last = 0
    for state in life_of_a_round():
        revision = store.record(state)
        assert store.latest_round() == Recorded(state, revision)
        assert revision > last
        last = revision


def rows_written_for_one_contribution(store: SqlStore, members: int) -> int:
    """Statements that change rows, when one of so many members contributes."""
    state = NEW
    for number in range(members):
        state = advance(state, Enter(at=2.0, client=f"client-{number}", edits=8))
    store.record(state)
    changes: list[str] = []
    event.listen(store._writer, "before_cursor_execute", lambda *said: changes.append(said[2].split()[0]))
    store.record(advance(state, Contribute(at=4.0, client="client-0", attempt=0, layer=0, digest="d0")))
    return sum(each in ("INSERT", "UPDATE", "DELETE") for each in changes)


def test_a_change_writes_what_has_changed_alone(new_database):
    """One contribution costs as many rows among forty members as among two: a round of n costs n of them, not n²."""
    written = []
    for members in (2, 40):
        store = SqlStore(open_engine(new_database()))
        written.append(rows_written_for_one_contribution(store, members))
        store.close()
    assert written[0] == written[1] > 0


def test_what_a_member_need_not_be_told_at_once():
    """That others enter and contribute; all else that can happen to a round, it must."""
    states = life_of_a_round()
    names = ["bern enters", "arosa enters", "arosa", "bern", "complete", "merged", "restart", "again", "complete"]
    told = [name for name, before, now in zip(names, states, states[1:], strict=False) if not only_counts(before, now)]
    assert told == ["bern enters", "arosa", "complete", "merged", "restart", "complete"], "firsts start something"
    contributed = states[4]
    assert not only_counts(contributed, advance(contributed, Damaged(at=6.0, clients=("bern",))))
    assert not only_counts(contributed, advance(contributed, Drop(at=6.0, reasons={"bern": "not heard of"})))
    claiming = advance(states[1], Enter(at=3.0, client="chur", edits=8, claims=()))
    assert only_counts(states[1], claiming)
    assert not only_counts(claiming, advance(claiming, Settle(at=4.0, rule=Rule()))), "contributions are taken"
    assert only_counts(contributed, advance(contributed, Report(at=5.0, client="bern", tested=8, held=8)))


def test_a_published_version_is_the_last_attempts_layers(store):
    """A version holds the layers of the attempt that went through, and nothing of one that was given up."""
    states = life_of_a_round()
    for state in states[:-1]:
        store.record(state)
        assert (store.latest_version(), store.version(1)) == (0, None)
    store.record(states[-1])
    assert store.latest_version() == 1
    assert tuple(store.version(1)) == (LayerWeights("a", "wa", PAST), LayerWeights("b", "wb"))
    assert tuple(store.version(0)) == ()
    assert store.version(2) is None


def rolled_back(to: int, layers: tuple[LayerWeights, ...]) -> Round:
    """Round 2, ended half-way by a rollback: one layer is merged, the other being collected."""
    merged = (LayerWeights("a", "half", Past(("half-kkt",))),)
    under_way = replace(life_of_a_round()[7], number=2, base_version=1, merged=merged)
    return advance(under_way, RollBack(at=20.0, to=to, merged=layers, reason="back"))


def test_a_rollback_is_a_version_with_the_layers_of_an_earlier_one(store):
    """It is read as it was recorded; its layers are those of the version brought back, also of the base's none."""
    states = life_of_a_round()
    store.record(states[-1])
    for to, layers in ((1, tuple(store.version(1))), (0, ())):
        ended = rolled_back(to, layers)
        store.record(
            replace(ended, phase=Phase.COLLECTING, merged=(LayerWeights("a", "half", Past(("half-kkt",))),), ended=None)
        )
        store.record(ended)
        assert (store.latest_version(), tuple(store.version(2))) == (2, layers)
        assert store.round(2) == ended
        assert store.round(2).restores == to
        assert store.needed() == {"wa", "ka1", "ka2", "kb", "wb"}
    assert store.round(3) is None


def test_the_numbers_of_a_round_that_was_aborted_are_kept(store):
    """Its layers are gone, what was watched of them is not; a restart begins with none."""
    states = life_of_a_round()
    second = next(each for each in states if (each.attempt, each.layer) == (1, 1))
    merging = replace(second, phase=Phase.MERGING)
    ended = advance(merging, NotPositiveDefinite(at=20.0, reason="b is not positive definite"))
    store.record(ended)
    found = store.round(1)
    assert (found.merged, found.numbers) == ((), (NUMBERS,))
    assert next(each for each in states if each.attempt == 1).numbers == ()


def test_contributions_stay_known(store):
    """What counted once is known for good, so that a repeated call can be told from a new one."""
    for state in life_of_a_round():
        store.record(state)
    assert store.contribution(1, 0, 0, "bern") == "b0"
    assert store.contribution(1, 1, 1, "arosa") == "a2"
    assert store.contribution(1, 0, 1, "arosa") is None
    assert store.contributions(1) == {"a0", "b0", "a1", "a2"}


def test_blobs_are_needed_as_long_as_something_rests_on_them(store):
    """A round under way needs its contributions and layers; a version its layers; nothing needs what was given up."""
    states = life_of_a_round()
    for state in states[:7]:
        store.record(state)
    assert store.needed() == {"a0", "b0", "lost", "lost-kkt"}
    for state in states[7:]:
        store.record(state)
    assert store.needed() == {"wa", "ka1", "ka2", "kb", "wb"}


def test_what_only_pruned_versions_rest_on_is_not_needed(store):
    """The newest versions are kept, with what they share with older ones; rollbacks count as versions."""
    store.record(published(1, "w1", ("k1",)))
    store.record(published(2, "w2", ("k1", "k2")))
    store.record(published(3, "w3", ("k1", "k2", "k3")))
    store.prune(2)
    store.prune(2)
    assert (store.pruned(), store.version(1)) == ({1}, None)
    assert [each.digest for each in store.version(2)] == ["w2"]
    assert store.needed() == {"w2", "w3", "k1", "k2", "k3"}
    assert (store.round(1).phase, store.latest_version()) == (Phase.PUBLISHED, 3)
    store.prune(0)
    assert (store.pruned(), store.version(3)[0].digest) == ({1, 2}, "w3")
    noted = [each.entry.object for each in store.audit(0, 100) if each.entry.what == "prune"]
    assert noted == ["version 1", "version 2"]


def published(number: int, digest: str, pieces: tuple[str, ...]) -> Round:
    """A round that published one layer."""
    merged = (LayerWeights("a", digest, Past(pieces)),)
    return replace(NEW, number=number, phase=Phase.PUBLISHED, merged=merged, ended=9.0)


def test_a_blob_is_read_by_those_it_concerns(store):
    """Merged layers are for all, a contribution is for its sender alone."""
    for state in life_of_a_round():
        store.record(state)
    assert store.may_read("bern", "wa")
    assert store.may_read("bern", "ka1")
    assert store.may_read("bern", "ka2")
    assert not store.may_read("bern", "kb"), "withheld"
    assert not store.may_read("bern", "ka")
    assert not store.may_read("bern", 'ka1", "ka2')
    assert not store.may_read("bern", "%")
    assert store.may_read("bern", "b0")
    assert not store.may_read("bern", "a0")
    assert not store.may_read("bern", "unknown")
    assert not store.may_read("bern", "w\0a")


def test_rounds_are_listed_newest_first(store):
    """All of them, or as many as asked."""
    for number in (1, 2, 3):
        store.record(replace(NEW, number=number))
    assert [each.round.number for each in store.rounds()] == [3, 2, 1]
    assert [each.round.number for each in store.rounds(2)] == [3, 2]


def test_a_token_is_used_as_often_as_it_may_be(store):
    """Each use counts; an expired or unknown token gives nothing; looking uses nothing up."""
    store.add_token("hash", "client", 2, 100.0)
    assert store.token_role("hash", 5.0) == "client"
    assert [store.use_token("hash", 5.0) for _ in range(3)] == ["client", "client", None]
    assert store.token_role("hash", 5.0) is None
    store.add_token("old", "admin", 1, 100.0)
    assert store.use_token("old", 100.0) is None
    assert store.use_token("none", 1.0) is None


def test_a_client_is_revoked_until_it_enrols_again(store):
    """Revoking is told whether there was somebody to revoke; a new certificate lifts it."""
    assert store.client("bern") is None
    assert not store.revoke("bern", 1.0)
    store.add_client("bern", "client", "17", 1.0)
    assert store.revoke("bern", 2.0)
    assert store.revoke("bern", 3.0)
    assert (store.client("bern").revoked, store.client("bern").revoked_at) == (True, 2.0)
    store.add_client("bern", "client", "18", 4.0)
    assert (store.client("bern").revoked, store.client("bern").serial) == (False, "18")
    assert [each.id for each in store.clients()] == ["bern"]


def test_the_federations_settings_are_fixed_once(store):
    """Later calls change where the files are, never what the federation is."""
    assert store.federation() is None
    store.found("settings", "here")
    store.found("others", "there")
    assert store.federation() == ("settings", "there")


def test_a_stamp_is_known_until_the_next_one(store):
    """One value for each thing: that of its last stamp."""
    store.stamp("model", "s1", "f1")
    assert store.stamped("model", "s1") == "f1"
    store.stamp("model", "s2", "f2")
    assert (store.stamped("model", "s1"), store.stamped("model", "s2")) == (None, "f2")
