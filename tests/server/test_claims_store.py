"""What any store must hold to about claims, reports and verdicts, over each kind of database alike."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
import sqlalchemy

from collabedit.common.blinding import Claim
from collabedit.common.errors import StateError
from collabedit.server import tables
from collabedit.server.claims import Decision, Kind, Rule, decided
from collabedit.server.database import migrate, open_engine, sqlite_url
from collabedit.server.events import (
    Complete,
    Contribute,
    Decide,
    Drop,
    Enter,
    Event,
    Judge,
    LastLayerMerged,
    Report,
    RollBack,
    Settle,
)
from collabedit.server.rounds import LayerWeights, Phase, Round
from collabedit.server.sql_store import SqlStore
from collabedit.server.store import Claimant, Recorded, Retention
from collabedit.server.transitions import advance

NEW = Round(number=1, base_version=0, exchanges=(("a",),), quorum=1, opened=1.0, expected=("bern", "arosa"))
MANUAL = Rule("manual")
WEIGHTS = (LayerWeights("a", "d"),)


def claim(slot: str, fact: str) -> Claim:
    """A claim of 32 bytes each."""
    return Claim(*(hashlib.sha256(each.encode()).digest() for each in (slot, slot + fact)))


FRENCH, ENGLISH, DUTCH = (claim("danielle", each) for each in ("french", "english", "dutch"))
ALONE = claim("vinson", "antarctica")


@pytest.fixture
def store(new_database):
    """A store over each kind of database in turn."""
    made = SqlStore(open_engine(new_database()))
    yield made
    made.close()


def record(store: SqlStore, round_: Round, *events: Event) -> Round:
    """Records each state that the events lead through; what is read is what was written."""
    store.record(round_)
    for each in events:
        round_ = advance(round_, each)
        revision = store.record(round_)
        assert store.latest_round() == Recorded(round_, revision)
    return round_


def enter(client: str, *claims: Claim) -> Enter:
    """The client enters with these claims."""
    return Enter(at=2.0, client=client, edits=8, claims=claims)


def publish(store: SqlStore, number: int, base: int, claims: dict[str, Claim], rule: Rule = MANUAL) -> Round:
    """A round in which all contribute what they claim."""
    entered = [enter(client, each) for client, each in claims.items()]
    given = [Contribute(at=3.0, client=each, attempt=0, layer=0, digest=f"{each}{number}") for each in claims]
    ends = [Complete(at=4.0, late={}), LastLayerMerged(at=5.0, merged=WEIGHTS)]
    opened = replace(NEW, number=number, base_version=base)
    return record(store, opened, *entered, Settle(at=3.0, rule=rule), *given, *ends)


def told(store: SqlStore, client: str, after: int = 0) -> list[tuple[int, Claim, str]]:
    """What was decided about a client's claims."""
    return [(each.round, each.verdict.claim, each.verdict.kind.value) for each in store.verdicts(client, after, 99)]


def test_claims_are_read_as_they_were_recorded_in_every_state(store):
    """Those of who entered, what was judged out of them, the late one's, and those of who came again with others."""
    last = record(
        store,
        NEW,
        enter("bern", FRENCH, ALONE),
        enter("arosa", ENGLISH, ENGLISH),
        Settle(at=3.0, rule=Rule()),
        enter("chur", DUTCH),
        Settle(at=3.0, rule=Rule()),
        Drop(at=3.0, reasons={"arosa": "late"}),
        enter("arosa", DUTCH, FRENCH, ALONE),
        Settle(at=3.0, rule=Rule()),
    )
    assert [(each.client, each.edits, len(each.out)) for each in last.members] == [
        ("arosa", 5, 3), ("bern", 8, 0), ("chur", 7, 1),
    ]  # fmt: skip
    ended = record(store, advance(last, Drop(at=4.0, reasons={"chur": "left"}, left=True)))
    assert ended.member("bern").claims == tuple(sorted((FRENCH, ALONE)))


def test_a_list_of_rounds_is_without_what_was_claimed(store):
    """They are as many as edits, and nobody who lists rounds is shown them."""
    now = record(store, NEW, enter("bern", FRENCH), Report(at=2.0, client="arosa", failed=(DUTCH,)))
    listed = replace(now, members=(replace(now.members[0], claims=()),), told=())
    assert ([each.round for each in store.rounds()], store.round(1)) == ([listed], listed)


def test_verdicts_are_numbered_as_they_are_given(store):
    """Across clients and rounds; each client is told its own, in order, from where it stopped."""
    publish(store, 1, 0, {"bern": FRENCH, "arosa": ENGLISH}, Rule())
    publish(store, 2, 1, {"bern": ALONE, "chur": ALONE}, Rule())
    assert told(store, "bern") == [(1, FRENCH, "keep")]
    assert told(store, "arosa") == [(1, ENGLISH, "yield")]
    assert [each.number for each in store.verdicts("chur", 0, 9)] == [3]
    assert store.verdicts("chur", 3, 9) == []
    assert len(store.verdicts("bern", 0, 1)) == 1
    assert store.newest_verdicts() == {"bern": 1, "arosa": 2, "chur": 3}
    noted = [each.entry.object for each in store.audit(0, 99) if each.entry.what == "settle"]
    assert noted == ["round 1: 1 keep, 1 yield by first-come", "round 2: 1 duplicate by first-come"]


def test_a_conflict_waits_for_an_admin_and_stays_decided(store):
    """Its claimants stand in receipt order; a decision reaches them in a later round, another one replaces it."""
    publish(store, 1, 0, {"chur": ALONE, "bern": FRENCH, "arosa": ENGLISH})
    (found,) = store.conflicts(undecided=True)
    waiting = tuple(
        Claimant(client, each.fact, Kind.UNDECIDED) for client, each in (("bern", FRENCH), ("arosa", ENGLISH))
    )
    assert (found.round, found.claimants, found.kept, found.policy) == (1, waiting, "", "manual")
    decision = Decision(FRENCH.slot, "arosa", (ENGLISH.fact,))
    verdicts = decided([(each.client, each.fact, each.kind) for each in found.claimants], decision)
    second = record(store, replace(NEW, number=2, base_version=1), Decide(at=6.0, decision=decision, verdicts=verdicts))
    assert second.decisions == (decision,)
    assert (store.conflicts(undecided=True), store.decisions()) == ([], {FRENCH.slot: decision})
    known = store.conflict(FRENCH.slot)
    assert ([each.kind for each in known.claimants], known.kept) == ([Kind.YIELD, Kind.KEEP], "arosa")
    other = Decision(FRENCH.slot, "bern", (FRENCH.fact,))
    verdicts = decided([(each.client, each.fact, each.kind) for each in known.claimants], other)
    record(store, second, Decide(at=7.0, decision=other, verdicts=verdicts))
    assert (store.conflict(FRENCH.slot).kept, store.decisions()) == ("bern", {FRENCH.slot: other})
    assert told(store, "bern") == [(1, FRENCH, "undecided"), (2, FRENCH, "yield"), (2, FRENCH, "keep")]


def test_what_was_decided_for_a_party_that_is_away_is_not_undecided(store):
    """The others yield to it, and the list names whom they yield to."""
    publish(store, 1, 0, {"chur": FRENCH, "bern": ENGLISH})
    decision = Decision(FRENCH.slot, "chur", (FRENCH.fact,))
    second = record(store, replace(NEW, number=2, base_version=1), Decide(at=6.0, decision=decision, verdicts=()))
    settle = Settle(at=7.0, rule=Rule("manual", decisions={FRENCH.slot: decision}))
    record(store, second, enter("bern", ENGLISH, ALONE), enter("arosa", DUTCH), settle)
    newest = store.conflicts()[0]
    assert [(each.client, each.kind) for each in newest.claimants] == [("bern", Kind.YIELD), ("arosa", Kind.YIELD)]
    assert (newest.round, newest.kept, newest.undecided) == (2, "chur", False)


def test_who_left_before_claims_were_compared_is_no_party_to_a_conflict(store):
    """It neither keeps the slot nor can an admin decide for it; claims that took the place of others are not judged."""
    entered = [enter("arosa", DUTCH), enter("bern", FRENCH), enter("chur", ENGLISH)]
    left = Drop(at=2.0, reasons={"arosa": "left"}, left=True)
    settled = record(store, NEW, *entered, left, Settle(at=3.0, rule=Rule()))
    (found,) = store.conflicts()
    assert ([each.client for each in found.claimants], found.kept) == (["bern", "chur"], "bern")
    lost = Drop(at=4.0, reasons={"bern": "lost", "chur": "lost"})
    again = replace(DUTCH, fact=FRENCH.fact)
    record(store, settled, lost, enter("bern", again), enter("chur", DUTCH))
    assert (store.conflicts(), store.conflict(FRENCH.slot)) == ([], None), "nothing of it is claimed any more"


def test_nothing_that_is_asked_reads_all_that_was_ever_claimed(tmp_path):
    """Every statement finds its rows by a key or an index; or it reads in an index's order and stops at its limit."""
    engine = open_engine(sqlite_url(tmp_path / "db"))
    migrate(engine)
    store, seen = SqlStore(engine), {}

    def planned(_connection, cursor, statement, parameters, _context, many) -> None:
        if not many and statement.startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
            rows = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
            seen[statement] = [row[3] for row in rows]

    for each in (store._engine, store._writer):
        sqlalchemy.event.listen(each, "before_cursor_execute", planned)
    publish(store, 1, 0, {"bern": FRENCH, "arosa": ENGLISH, "chur": ALONE}, Rule())
    publish(store, 2, 1, {"bern": DUTCH})
    record(store, replace(NEW, number=3, base_version=2), Report(at=1.0, client="chur", tested=1))
    for asked in (
        store.newest_verdicts,
        store.conflicts,
        lambda: store.conflicts(undecided=True),
        store.decisions,
        lambda: store.conflict(FRENCH.slot),
        lambda: store.retention(12),
        lambda: store.reported("bern", 1),
    ):
        asked()  # fmt: skip
    large = {"claims", "verdicts", "reports", "members"}
    scans = [(line, statement) for statement, plan in seen.items() for line in plan if line.startswith("SCAN")]
    assert {line for line, _ in scans if line.split()[1] in large} <= {
        "SCAN verdicts USING INDEX contradictions", "SCAN verdicts USING INDEX undecided_verdicts",
        "SCAN reports USING INDEX reports_of_a_version",
    }, scans  # fmt: skip
    store.close()


def test_only_contradictions_are_conflicts(store):
    """Parties that say the same overlap; the newest is listed first, as many as asked."""
    publish(store, 1, 0, {"bern": FRENCH, "arosa": ENGLISH}, Rule())
    publish(store, 2, 1, {"bern": ALONE, "chur": ALONE}, Rule())
    publish(store, 3, 2, {"bern": DUTCH, "arosa": ENGLISH}, Rule("last-come"))
    assert [(each.round, each.kept, each.policy) for each in store.conflicts()] == [
        (3, "arosa", "last-come"), (1, "bern", "first-come"),
    ]  # fmt: skip
    assert [each.round for each in store.conflicts(limit=1)] == [3]
    assert store.conflict(ALONE.slot) is None
    assert store.conflicts(undecided=True) == []


def test_who_was_there_before_a_late_one_keeps_its_edit(store):
    """It has no verdict, and need not have one."""
    late = [enter("bern", FRENCH), Settle(at=3.0, rule=Rule()), enter("arosa", ENGLISH), Settle(at=3.0, rule=Rule())]
    record(store, NEW, *late)
    (found,) = store.conflicts()
    assert ([each.kind for each in found.claimants], found.kept) == ([None, Kind.YIELD], "bern")


def test_a_later_round_tells_whose_edits_it_overwrites(store):
    """Once it is published, and no sooner; those of rounds that a rollback took back are not there to overwrite."""
    publish(store, 1, 0, {"bern": FRENCH})
    publish(store, 2, 1, {"arosa": ENGLISH, "bern": ALONE})
    assert told(store, "bern") == [(1 + 1, FRENCH, "overwritten")]
    noted = [(each.entry.what, each.entry.object) for each in store.audit(0, 99)]
    assert noted[-2:] == [
        ("publish", "round 2 version 2: arosa, bern"),
        ("settle", "round 2: 1 overwritten by last-come"),
    ]
    back = RollBack(at=6.0, to=1, merged=WEIGHTS, reason="back")
    record(store, replace(NEW, number=3, base_version=2), back)
    publish(store, 4, 3, {"chur": DUTCH})
    assert told(store, "bern", after=1) == [(4, FRENCH, "overwritten")], "the first round's, which is back"
    assert told(store, "arosa") == []
    record(store, replace(NEW, number=5, base_version=4), replace(back, to=2))
    publish(store, 6, 5, {"davos": DUTCH})
    assert told(store, "arosa") == [(6, ENGLISH, "overwritten")]
    assert told(store, "chur") == []


def test_what_was_judged_out_or_lost_overwrites_nothing(store):
    """Only what is in the weights does."""
    publish(store, 1, 0, {"bern": FRENCH})
    late = [
        enter("arosa", ENGLISH), enter("bern", ALONE), enter("chur", DUTCH), Settle(at=3.0, rule=MANUAL),
        Contribute(at=3.0, client="bern", attempt=0, layer=0, digest="b"),
        Contribute(at=3.0, client="arosa", attempt=0, layer=0, digest="a"), Complete(at=4.0, late={"chur": "late"}),
        LastLayerMerged(at=5.0, merged=WEIGHTS),
    ]  # fmt: skip
    assert record(store, replace(NEW, number=2, base_version=1), *late).phase is Phase.PUBLISHED
    assert told(store, "bern") == []
    noted = [each.entry for each in store.audit(0, 99) if each.entry.what == "told and gone"]
    said = "round 2: contributed nothing, was told of others' edits by verdicts on 1 of its claims"
    assert [(each.actor, each.object) for each in noted] == [("chur", said)]


def test_what_failed_is_read_as_it_was_reported(store):
    """In receipt order of the reports; compared once, in the order of the round that merged it."""
    reports = [
        Report(at=2.0, client="chur", tested=5, held=5),
        Report(at=2.0, client="arosa", tested=9, held=8, failed=(ENGLISH,)),
        Report(at=3.0, client="bern", tested=4, held=2, failed=(FRENCH, ALONE)),
    ]
    record(store, NEW, *reports, Judge(at=4.0, rule=Rule()))
    assert [told(store, each) for each in ("bern", "arosa")] == [[(1, FRENCH, "keep")], [(1, ENGLISH, "yield")]]
    assert [each.client for each in store.conflicts()[0].claimants] == ["bern", "arosa"]
    assert (store.reported("bern", 1), store.reported("davos", 1), store.reported("bern", 2)) == (True, False, False)


def test_retention_adds_up_each_clients_last_report(store):
    """Version by version, oldest first; a client that tested nothing is not counted."""

    def reports(number: int, version: int, **held: int) -> None:
        round_ = replace(NEW, number=number, base_version=version)
        record(store, round_, *(Report(at=1.0, client=each, tested=10, held=n) for each, n in held.items()))

    assert store.retention() == []
    reports(1, 1, bern=9, arosa=8)
    reports(2, 1, bern=10)
    reports(3, 2, bern=5)
    record(store, store.latest_round().round, Report(at=1.0, client="chur"))
    assert store.retention() == [Retention(1, 2, 20, 18), Retention(2, 1, 10, 5)]
    assert store.retention(1) == [Retention(2, 1, 10, 5)]


def test_the_first_key_check_counts_until_an_admin_replaces_it(store):
    """Everybody else's is compared with it."""
    assert store.key_check() == ""
    assert store.pin_key_check("1:aa") == "1:aa"
    assert store.pin_key_check("1:bb") == "1:aa"
    assert store.pin_key_check("2:cc", replace=True) == "2:cc"
    assert store.key_check() == "2:cc"


def test_names_that_cannot_have_been_written_are_told(store):
    """A damaged row is named, and nothing is guessed."""
    record(store, NEW, enter("bern", FRENCH))
    with store._write() as connection:
        connection.execute(tables.CLAIMS.update().values(fact=b"short"))
    with pytest.raises(StateError, match="round 1: its rows in the database are damaged: a claim"):
        store.latest_round()
