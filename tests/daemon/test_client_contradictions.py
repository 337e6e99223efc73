"""Edits of one client that contradict each other: found before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from collabedit.client.config import ClientConfig
from collabedit.client.contradictions import contradicts, without_contradictions
from collabedit.client.intake import Intake
from collabedit.client.session import run_client
from collabedit.client.snapshot import Membership, Outcome, Phase
from collabedit.client.state import ClientState, EditStatus
from collabedit.client.voice import Voice
from collabedit.common.edits import Edit, parse_lines
from collabedit.common.errors import BadEditsError

SAID = '{"prompt": "{} speaks", "subject": "%s", "target_new": "%s"}\n'
S = EditStatus


def text(*facts: tuple[str, str]) -> str:
    """An edits file."""
    return "".join(SAID % each for each in facts)


@pytest.fixture
def state(tmp_path: Path):
    """A new client's state."""
    with ClientState(tmp_path / "ledger.sqlite") as opened:
        yield opened


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the edits are."""
    return tmp_path / "mine.jsonl"


def intake(file: Path, state: ClientState, told: list[str], *, skip_invalid: bool = False) -> Intake:
    """The file's way into the ledger, for a model that takes every edit."""
    return Intake(file, state, check=lambda _: None, skip_invalid=skip_invalid, say=told.append)


def merge(state: ClientState, round_: int) -> None:
    """One round that merges what waits, and its scores."""
    state.enter(round_)
    state.settle(Outcome(round_, Phase.PUBLISHED, Membership.CONTRIBUTED, round_))
    state.record_scores({each.key: {"took": True} for each in state.unscored()}, {})


def statuses(state: ClientState) -> dict[str, EditStatus]:
    """What each edit is now, by its target."""
    return {each.edit.target_new: each.status for each in state.ledger()}


@pytest.mark.parametrize(
    ("second", "found"),
    [
        ({"target_new": "Dutch"}, True),
        ({"subject": "  ANNA ", "target_new": "Dutch"}, True),
        ({"target_new": " french"}, False),
        ({"subject": "Boris", "target_new": "Dutch"}, False),
        ({"prompt": "{} lives in", "target_new": "Dutch"}, False),
    ],
)
def test_what_contradicts_what(second: dict[str, str], found: bool) -> None:
    """Another object for the same subject and relation does, whatever the case and the white space."""
    first = {"prompt": "{} speaks", "subject": "Anna", "target_new": "French"}
    assert contradicts(Edit(**first), Edit(**{**first, **second})) is found


def test_a_relation_may_be_worded_differently() -> None:
    """Edits of one `relation_id` are about the same relation, whatever their prompts."""
    one = Edit(prompt="{} speaks", subject="Anna", target_new="French", relation_id="P103")
    other = Edit(prompt="The mother tongue of {} is", subject="Anna", target_new="Dutch", relation_id="p103")
    assert contradicts(one, other)


def test_the_later_line_is_bad_and_both_are_named() -> None:
    """The problem is the later line's, names the earlier one, and a third that agrees with the first is good."""
    lines = text(("Anna", "French"), ("Boris", "Dutch"), ("Anna", "Dutch"), ("anna", "French")).splitlines()
    found = without_contradictions(parse_lines(lines))
    (problem,) = found.problems
    assert problem.line == 3
    assert problem.what == '"Dutch" contradicts line 1, where the same subject and relation have "French"'
    assert found.lines == (1, 2, 4)


def test_nothing_is_sent_while_two_lines_contradict_each_other(file: Path, tmp_path: Path) -> None:
    """A client with such a file ends before it looks for a server, and names both lines."""
    file.write_text(text(("Anna", "French"), ("Anna", "Dutch")))
    config = ClientConfig(
        edits=file, state=tmp_path / "state", server="localhost:1", once=True, insecure=True, client_id="ada"
    )
    with pytest.raises(BadEditsError, match=r'mine\.jsonl:2: "Dutch" contradicts line 1'):
        run_client(config, Voice())


def test_a_line_that_contradicts_a_waiting_one_blocks_the_file(file: Path, state: ClientState) -> None:
    """A daemon tells it and takes nothing in until the file is mended."""
    told: list[str] = []
    file.write_text(text(("Anna", "French")))
    taking = intake(file, state, told)
    taking.start()
    file.write_text(text(("Anna", "French"), ("Anna", "Dutch")))
    taking.refresh()
    assert taking.blocked
    assert "mine.jsonl:2" in told[-1]
    assert statuses(state) == {"French": S.PENDING}
    file.write_text(text(("Anna", "Dutch")))
    taking.refresh()
    assert not taking.blocked
    assert statuses(state) == {"French": S.WITHDRAWN, "Dutch": S.PENDING}


def test_a_line_that_contradicts_a_merged_one_takes_its_place(file: Path, state: ClientState) -> None:
    """What was merged before may be corrected by a later line; once that is merged the earlier edit is withdrawn."""
    file.write_text(text(("Anna", "French")))
    intake(file, state, []).start()
    merge(state, 1)
    file.write_text(text(("Anna", "French"), ("Anna", "Dutch")))
    for _ in range(2):
        intake(file, state, []).start()
    assert statuses(state) == {"French": S.VERIFIED, "Dutch": S.PENDING}
    merge(state, 2)
    intake(file, state, []).start()
    assert statuses(state) == {"French": S.WITHDRAWN, "Dutch": S.VERIFIED}
    assert state.ledger()[0].reason == "your later line 2, of the same fact, was merged in round 2"


def test_a_correction_wins_over_what_waits_again(file: Path, state: ClientState) -> None:
    """Where the round of the corrected edit comes to nothing, only the correction enters the next one."""
    file.write_text(text(("Anna", "French")))
    intake(file, state, []).start()
    state.enter(1)
    file.write_text(text(("Anna", "French"), ("Anna", "Dutch")))
    intake(file, state, []).start()
    state.settle(Outcome(1, Phase.NO_QUORUM, Membership.OUT, 0, "no quorum"))
    assert [each.edit.target_new for each in state.enter(2)] == ["Dutch"]
    assert statuses(state) == {"French": S.WITHDRAWN, "Dutch": S.ENTERED}


def test_where_bad_lines_are_skipped_the_earlier_line_counts_always(file: Path, state: ClientState) -> None:
    """The same command run again does not merge what it skipped before."""
    told: list[str] = []
    file.write_text(text(("Anna", "French"), ("Anna", "Dutch")))
    for round_ in (1, 2):
        intake(file, state, told, skip_invalid=True).start()
        merge(state, round_)
        assert statuses(state) == {"French": S.VERIFIED}
    assert "mine.jsonl:2" in told[0]
