"""When something is due in a round, case by case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from collabedit.common.blinding import Claim
from collabedit.server.claims import Rule
from collabedit.server.events import Complete, Drop, Judge, Restart, Settle, TooFew
from collabedit.server.policy import Policy, Waits, next_event, wait_ends
from collabedit.server.rounds import Member, Phase, Round, Status, Told

POLICY = Policy(entry_window=10, round_deadline=100, layer_deadline=50, liveness=1000)
HERE = Waits(0, entered=0, since=0)
GIVEN, OWES = Status.CONTRIBUTED, Status.ENTERED


def collecting(*statuses: Status, quorum: int = 1, layer: int = 0, attempt: int = 0) -> Round:
    """A round of two layers that the first party entered at 0; its present layer began then."""
    members = tuple(Member(f"c{index}", 8, status) for index, status in enumerate(statuses))
    return Round(
        number=1, base_version=0, exchanges=(("a",), ("b",)), quorum=quorum, opened=0, phase=Phase.COLLECTING,
        attempt=attempt, layer=layer, members=members, entered=0, since=0,
    )  # fmt: skip


LATE, LATER = "late: no contribution within 100 s", "late: no contribution within 50 s"
TABLE = [
    ("nobody has entered, ever", replace(collecting(), entered=None, phase=Phase.OPEN), 1e9, None),
    ("the window is open", collecting(GIVEN), 9.9, None),
    ("the window is over", collecting(GIVEN), 10, Complete(at=10, late={})),
    ("one still edits", collecting(GIVEN, OWES), 99, None),
    ("one is late", collecting(GIVEN, OWES), 100, Complete(at=100, late={"c1": LATE})),
    ("all gave but the quorum waits", collecting(GIVEN, quorum=2), 99, None),
    (
        "no quorum by the deadline",
        collecting(GIVEN, OWES, quorum=2),
        100,
        TooFew(at=100, reasons={"c0": "no quorum: 1 of 2", "c1": LATE}, reason="no quorum: 1 of 2"),
    ),
    ("nobody gave", collecting(OWES), 100, TooFew(at=100, reasons={"c0": LATE}, reason="no quorum: 0 of 1")),
    ("a later layer is complete", collecting(GIVEN, GIVEN, layer=1), 1, Complete(at=1, late={})),
    ("a later layer waits", collecting(GIVEN, OWES, layer=1), 49, None),
    ("a later layer is late", collecting(GIVEN, OWES, layer=1), 50, Restart(at=50, reasons={"c1": LATER})),
    ("a restart's first layer is late", collecting(GIVEN, OWES, attempt=1), 50, Complete(at=50, late={"c1": LATER})),
    (
        "a later layer is late, and too few remain",
        collecting(GIVEN, OWES, layer=1, quorum=2),
        50,
        TooFew(at=50, reasons={"c0": "no quorum: 1 of 2", "c1": LATER}, reason="no quorum: 1 of 2"),
    ),
    ("merging waits for nobody", replace(collecting(GIVEN), phase=Phase.MERGING), 1e9, None),
]


@pytest.mark.parametrize(("_", "round_", "now", "due"), TABLE, ids=[each[0] for each in TABLE])
def test_what_is_due(_, round_, now, due):
    """The event that a round calls for at a time."""
    assert next_event(round_, now, POLICY, HERE) == due


def claiming(*judged: bool, quorum: int = 1) -> Round:
    """A round whose parties have claimed something, or nothing; some of them have been judged."""
    members = tuple(Member(f"c{index}", 8, place=index, judged=each) for index, each in enumerate(judged))
    return replace(collecting(quorum=quorum), phase=Phase.OPEN, members=members)


def told(*clients: str, failed: bool = True, **changes) -> Round:
    """A round that nobody has entered, to which those have reported that c0 and c1 are to."""
    claims = (Claim(b"s", b"f"),) if failed else ()
    reports = tuple(Told(each, 0.0, 1, 0, claims) for each in clients)
    waiting = replace(collecting(), phase=Phase.OPEN, entered=None, told=reports, expected=("c0", "c1"))
    return replace(waiting, **changes)


SETTLE, JUDGE = Settle(at=10, rule=Rule()), Judge(at=10, rule=Rule())
CLAIMED = [
    ("others may still claim", claiming(False, False), 9.9, None),
    ("the window is over", claiming(False, False), 10, SETTLE),
    ("the window is over, and the quorum still to come", claiming(False, False, quorum=3), 99, None),
    ("the window is over, and the quorum has come", claiming(False, False, False, quorum=3), 10, SETTLE),
    ("one came late", claiming(True, False), 1, replace(SETTLE, at=1)),
    ("one came late to a quorum of more", claiming(True, False, quorum=3), 1, replace(SETTLE, at=1)),
    ("all have been judged", claiming(True, True), 10, None),
    ("another is still to tell", told("c0"), 10, None),
    ("all have told", told("c0", "c1"), 10, JUDGE),
    ("all have told that everything holds", told("c0", "c1", failed=False), 1e9, None),
    ("another was given time enough", told("c0"), 50, replace(JUDGE, at=50)),
    ("it is not known who is to tell", told("c0", "c1", expected=()), 10, None),
    ("what failed has been compared", told("c0", "c1", compared=1.0), 1e9, None),
]


@pytest.mark.parametrize(("_", "round_", "now", "due"), CLAIMED, ids=[each[0] for each in CLAIMED])
def test_when_claims_are_judged(_, round_, now, due):
    """Once everybody has had the time to tell its own; who comes later at once."""
    assert next_event(round_, now, POLICY, replace(HERE, told=0)) == due


SILENT = "not heard of for 30 s"
LOST = [
    ("in the first layer", collecting(GIVEN, OWES), Drop(at=40, reasons={"c1": SILENT})),
    ("in a later layer", collecting(GIVEN, OWES, layer=1), Restart(at=40, reasons={"c1": SILENT})),
    (
        "in a later layer with a quorum of all",
        collecting(GIVEN, OWES, layer=1, quorum=2),
        TooFew(at=40, reasons={"c0": "no quorum: 1 of 2", "c1": SILENT}, reason="no quorum: 1 of 2"),
    ),
    ("after its part of the first layer", collecting(OWES, GIVEN), Drop(at=40, reasons={"c1": SILENT})),
    ("after its part of the last layer", collecting(OWES, GIVEN, layer=1), None),
]


@pytest.mark.parametrize(("_", "round_", "due"), LOST, ids=[each[0] for each in LOST])
def test_a_silent_party_is_lost(_, round_, due):
    """Silence for longer than `liveness` takes a party out, unless it owes the round nothing more."""
    policy = replace(POLICY, liveness=30, entry_window=0)
    assert next_event(round_, 40, policy, Waits(0, {"c0": 35, "c1": 9})) == due


def test_the_servers_own_absence_is_nobodys_delay():
    """After a restart of the server every wait begins anew."""
    round_, back = collecting(GIVEN, OWES, layer=1), Waits(5000, {})
    assert next_event(round_, 5049, POLICY, back) is None
    assert wait_ends(round_, POLICY, back) == 5050
