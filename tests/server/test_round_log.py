"""What an operator's log says of conflicts and of retention: names and numbers that an alarm can be set on."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

from structlog.testing import capture_logs

from collabedit.common.blinding import Claim
from collabedit.server.claims import Rule
from collabedit.server.events import Enter, Settle
from collabedit.server.retention_watch import RetentionWatch
from collabedit.server.round_log import log_change
from collabedit.server.rounds import Round
from collabedit.server.store import Retention
from collabedit.server.transitions import advance

NEW = Round(number=3, base_version=2, exchanges=(("a",),), quorum=1, opened=1.0)


def claim(slot: str, fact: str) -> Claim:
    """Blinded names, as good as real ones."""
    return Claim(*(hashlib.sha256(each.encode()).digest() for each in (slot, slot + fact)))


def logged(rule: Rule) -> list[dict]:
    """The log of a round in which two contradict each other twice and agree once."""
    shared = [claim("paris", "it"), claim("vinson", "antarctica")]
    round_ = advance(NEW, Enter(at=2.0, client="bern", edits=8, claims=(*shared, claim("danielle", "french"))))
    others = (claim("paris", "fr"), shared[1], claim("danielle", "english"))
    round_ = advance(round_, Enter(at=2.0, client="arosa", edits=8, claims=others))
    event = Settle(at=3.0, rule=rule)
    with capture_logs() as lines:
        log_change(event, round_, advance(round_, event))
    return lines


def test_what_was_settled_is_logged_as_counts() -> None:
    """Of each kind of verdict, and by which policy; no name of a client or of a claim."""
    change, settled = logged(Rule())
    assert (change["event"], change["what"], change["phase"]) == ("round", "Settle", "open")
    assert settled == {
        "event": "settled", "log_level": "info", "round": 3, "policy": "first-come",
        "keep": 2, "yield": 2, "duplicate": 1,
    }  # fmt: skip


def test_conflicts_that_wait_for_an_admin_are_a_warning() -> None:
    """How many, not how many edits: two parties stand in each."""
    *_, warned = logged(Rule("manual"))
    assert warned == {"event": "conflicts undecided", "log_level": "warning", "round": 3, "conflicts": 2}


def test_a_change_that_settles_nothing_logs_itself_alone() -> None:
    """As most do."""
    event = Enter(at=2.0, client="bern", edits=8, claims=None)
    with capture_logs() as lines:
        log_change(event, NEW, advance(NEW, event))
    assert [each["what"] for each in lines] == ["Enter"]


def test_a_fall_of_retention_has_one_name_and_its_figures() -> None:
    """Once a version: an alarm goes by the event's name, not by a sentence with numbers in it."""
    stamps: dict[str, str] = {}
    curve = [Retention(1, 2, 200, 190), Retention(2, 2, 400, 300)]
    store = SimpleNamespace(
        retention=lambda _: curve,
        stamped=lambda _, stamp: stamps.get(stamp),
        stamp=lambda _, stamp, value: stamps.update({stamp: value}),
    )
    watch = RetentionWatch(store)
    with capture_logs() as lines:
        watch.look()
        watch.look()
    assert lines == [
        {
            "event": "retention fell", "log_level": "warning", "version": 2, "rate": 0.75, "tested": 400, "held": 300,
            "since": 1, "before": 0.95,
        }
    ]  # fmt: skip
