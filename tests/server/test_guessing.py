"""What a client can find out by claiming facts that it only guesses: so many a round, and not unseen."""

from __future__ import annotations

import hashlib

import pytest
from structlog.testing import capture_logs

from collabedit.common.blinding import Claim
from collabedit.server.asked import entering, reporting
from collabedit.server.audit_rounds import gone
from collabedit.server.claims import Rule
from collabedit.server.events import Complete, Contribute, Drop, Enter, Event, Settle
from collabedit.server.refusals import BadRequestRefusal
from collabedit.server.round_log import log_change
from collabedit.server.rounds import Round
from collabedit.server.transitions import advance

NEW = Round(number=7, base_version=6, exchanges=(("a",),), quorum=2, opened=1.0)
MOST = 3


def claims(*slots: str) -> tuple[Claim, ...]:
    """Claims of the same facts wherever a slot is named."""
    return tuple(Claim(*(hashlib.sha256(each.encode()).digest() for each in (slot, slot.upper()))) for slot in slots)


def enters(round_: Round, client: str, told: tuple[Claim, ...]) -> Round:
    """The round once the client has called; raises what it is refused with."""
    event = entering(client, 7, 6, 8, told, MOST)(round_, 2.0)
    return advance(round_, event) if event else round_


def test_a_client_claims_so_many_facts_and_no_more():
    """The refusal names client, number and mend; a fact that several of its edits say is one."""
    entered = enters(NEW, "bern", claims("p", "q", "r", "r"))
    assert entered.member("bern").claimed == MOST
    assert enters(entered, "bern", claims("s", "t", "u", "v")) == entered, "what comes again changes nothing"
    with pytest.raises(BadRequestRefusal, match="arosa claims 4 facts in round 7, and the server takes 3") as refused:
        enters(entered, "arosa", claims("p", "q", "r", "s"))
    assert "--max-claims" in refused.value.mend
    with pytest.raises(BadRequestRefusal, match="arosa claims 4 facts"):
        reporting("arosa", 7, 6, 8, 4, claims("p", "q", "r", "s"), MOST)(NEW, 2.0)
    assert reporting("arosa", 7, 6, 8, 4, claims("p", "q", "r"), MOST)(NEW, 2.0) is not None


def test_who_comes_back_cannot_claim_others_instead():
    """Silent until it is lost, then in again with the next guesses: they are counted together, in the whole round."""
    lost = Drop(at=3.0, reasons={"bern": "not heard of"})
    round_ = advance(enters(NEW, "bern", claims("p", "q")), lost)
    again = enters(round_, "bern", claims("q", "p"))
    assert again.member("bern").claimed == 2, "an honest client comes back with the same edits"
    more = advance(enters(round_, "bern", claims("p", "r")), lost)
    with pytest.raises(BadRequestRefusal, match="bern claims 4 facts"):
        enters(more, "bern", claims("s", "p"))


def played(*events: Event) -> tuple[Round, Round]:
    """A round before and after the last event, in which zug repeats two edits of bern's."""
    round_ = NEW
    entered = [
        Enter(at=2.0, client=client, edits=8, claims=told)
        for client, told in (("arosa", claims("o")), ("bern", claims("p", "q")), ("zug", claims("p", "q", "r")))
    ]
    for each in (*entered, Settle(at=3.0, rule=Rule()), *events[:-1]):
        round_ = advance(round_, each)
    return round_, advance(round_, events[-1])


GIVEN = [Contribute(at=4.0, client=client, attempt=0, layer=0, digest=client) for client in ("arosa", "bern", "zug")]
ENDS = [
    ("leaves", [Drop(at=4.0, reasons={"zug": "left"}, left=True)], {"zug": 2}),
    ("falls silent", [Drop(at=4.0, reasons={"zug": "not heard of"})], {"zug": 2}),
    ("is late", [*GIVEN[:2], Complete(at=4.0, late={"zug": "late"})], {"zug": 2}),
    ("leaves when its part is there", [*GIVEN, Drop(at=4.0, reasons={"zug": "left"}, left=True)], {}),
    ("was told nothing", [Drop(at=4.0, reasons={"bern": "left"}, left=True)], {}),
    ("stays", GIVEN, {}),
]


@pytest.mark.parametrize(("_", "events", "expected"), ENDS, ids=[each[0] for each in ENDS])
def test_who_was_told_and_is_gone_is_noted(_, events, expected):
    """Client and number, as a warning and in the audit log: one that guesses looks so."""
    before, after = played(*events)
    with capture_logs() as lines:
        log_change(events[-1], before, after)
    warned = [each for each in lines if each["event"] == "told and gone"]
    assert {each["client"]: each["verdicts"] for each in warned} == expected
    assert all((each["log_level"], each["round"]) == ("warning", 7) for each in warned)
    noted = gone({each.client: each.status for each in before.members}, after, 4.0)
    assert [(each.actor, each.what) for each in noted] == [(client, "told and gone") for client in expected]
    assert all("verdicts on 2 of its claims" in each.object for each in noted)
