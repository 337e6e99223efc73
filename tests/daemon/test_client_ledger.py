"""The ledger: what becomes of an edit, and that its life has a row for each change."""

from __future__ import annotations

import re
import sqlite3
import tempfile
from itertools import pairwise, product
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from collabedit.client import schema
from collabedit.client.edit_life import (
    NEXT,
    WAITING,
    Cause,
    EditStatus,
    VerdictKind,
    VerdictNote,
    after_verdict,
)
from collabedit.client.snapshot import Membership, Outcome, Phase
from collabedit.client.state import ClientState
from collabedit.common.edits import Parsed, parse_lines

TOOK, LOST = {"took": True}, {"took": False}
S = EditStatus


def said(subject: str, target: str = "French") -> str:
    """One line of an edits file."""
    return f'{{"prompt": "{{}} speaks", "subject": "{subject}", "target_new": "{target}"}}'


def parsed(*subjects: str) -> Parsed:
    """An edits file with one line for each subject."""
    return parse_lines([said(each) for each in subjects])


@pytest.fixture
def state(tmp_path: Path):
    """A new client's state."""
    with ClientState(tmp_path / "ledger.sqlite") as opened:
        yield opened


def ended(round_: int, *, merged: bool = True) -> Outcome:
    """A round that merged us, or that came to nothing."""
    if merged:
        return Outcome(round_, Phase.PUBLISHED, Membership.CONTRIBUTED, round_)
    return Outcome(round_, Phase.NO_QUORUM, Membership.OUT, round_ - 1, "no quorum")


def statuses(state: ClientState) -> dict[str, EditStatus]:
    """What each edit is now, by its subject and its target."""
    return {each.edit.subject: each.status for each in state.ledger()}


def merge(state: ClientState, round_: int, *, took: bool = True) -> None:
    """One round that merges what waits, and its scores."""
    state.enter(round_)
    state.settle(ended(round_))
    state.record_scores({each.key: TOOK if took else LOST for each in state.unscored()}, {round_: {}})


def key_of(state: ClientState, subject: str) -> str:
    """The key of the edit about `subject`."""
    return next(each.key for each in state.ledger() if each.edit.subject == subject)


def heed(state: ClientState, subject: str, kind: VerdictKind, number: int = 1, round_: int = 1) -> None:
    """One verdict about the edit of `subject`."""
    state.heed([VerdictNote(number, round_, key_of(state, subject), kind, "first-come")])


def test_a_life_has_a_row_for_every_change(state: ClientState) -> None:
    """An edit that waits, is merged and holds has four rows: when, what, in which round, in which version."""
    state.take_in(parsed("Anna"))
    merge(state, 1)
    life = state.life(key_of(state, "Anna"))
    assert [each.status for each in life] == [S.PENDING, S.ENTERED, S.MERGED, S.VERIFIED]
    assert [(each.round, each.version) for each in life] == [(None, None), (1, None), (1, 1), (1, 1)]
    assert [each.at_ms for each in life] == sorted(each.at_ms for each in life)


def test_an_edit_that_did_not_take_has_failed(state: ClientState) -> None:
    """A merged edit is verified where the new weights say it, else it has failed and waits for a decision."""
    state.take_in(parsed("Anna"))
    merge(state, 1, took=False)
    (entry,) = state.failed()
    assert (entry.status, entry.merged, entry.reason) == (S.FAILED, True, "it did not take on the merged weights")
    assert state.waiting() == []


# What a verdict makes of an edit in each state that a round leaves it in.
BEFORE = {
    S.PENDING: lambda state: None,
    S.ENTERED: lambda state: state.enter(1),
    S.VERIFIED: lambda state: merge(state, 1),
    S.FAILED: lambda state: merge(state, 1, took=False),
}


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        (VerdictKind.YIELD, S.ENTERED, S.WITHDRAWN),
        (VerdictKind.YIELD, S.FAILED, S.WITHDRAWN),
        (VerdictKind.KEEP, S.ENTERED, S.ENTERED),
        (VerdictKind.KEEP, S.FAILED, S.RESUBMITTED),
        (VerdictKind.KEEP, S.VERIFIED, S.VERIFIED),
        (VerdictKind.DUPLICATE, S.ENTERED, S.PENDING),
        (VerdictKind.UNDECIDED, S.ENTERED, S.IN_CONFLICT),
        (VerdictKind.UNDECIDED, S.FAILED, S.IN_CONFLICT),
        (VerdictKind.OVERWRITTEN, S.VERIFIED, S.IN_CONFLICT),
        (VerdictKind.OVERWRITTEN, S.PENDING, S.PENDING),
    ],
)
def test_a_verdict_is_heeded(state: ClientState, kind: VerdictKind, before: S, after: S) -> None:
    """Each verdict leads to its state, is told as the reason, and stands in the edit's life."""
    state.take_in(parsed("Anna"))
    BEFORE[before](state)
    heed(state, "Anna", kind)
    (entry,) = state.ledger()
    assert entry.status is after
    assert "round 1: " in entry.reason
    decided = {VerdictKind.UNDECIDED: "admin", VerdictKind.OVERWRITTEN: "overwrote"}.get(kind, "policy first-come")
    assert decided in entry.reason
    assert state.life(entry.key)[-1].reason == entry.reason
    assert entry.augmented is (after is S.RESUBMITTED)


def test_a_verdict_counts_once(state: ClientState) -> None:
    """Verdicts heeded before change nothing, those about no edit of ours count as heeded."""
    state.take_in(parsed("Anna"))
    merge(state, 1, took=False)
    heed(state, "Anna", VerdictKind.KEEP, number=4)
    merge(state, 2)
    heed(state, "Anna", VerdictKind.KEEP, number=4)
    assert statuses(state) == {"Anna": S.VERIFIED}
    state.heed([], through=9)
    assert state.heeded == 9
    heed(state, "Anna", VerdictKind.OVERWRITTEN, number=7)
    assert statuses(state) == {"Anna": S.VERIFIED}


def test_a_line_that_is_still_there_does_not_undo_a_verdict(state: ClientState) -> None:
    """What yields stays withdrawn while the file holds its line; another decision brings it back, augmented."""
    state.take_in(parsed("Anna"))
    state.enter(1)
    heed(state, "Anna", VerdictKind.YIELD)
    state.take_in(parsed())
    state.take_in(parsed("Anna"))
    assert statuses(state) == {"Anna": S.WITHDRAWN}
    heed(state, "Anna", VerdictKind.KEEP, number=2)
    assert [(each.status, each.augmented) for each in state.waiting()] == [(S.RESUBMITTED, True)]


def test_no_verdict_brings_back_what_its_owner_withdrew(state: ClientState) -> None:
    """An edit whose line went stays withdrawn whatever is decided, with its own reason."""
    state.take_in(parsed("Anna"))
    state.enter(1)
    state.take_in(parsed())
    heed(state, "Anna", VerdictKind.DUPLICATE)
    assert [(each.status, each.reason) for each in state.ledger()] == [(S.WITHDRAWN, "its line went from the file")]
    heed(state, "Anna", VerdictKind.KEEP, number=2)
    assert statuses(state) == {"Anna": S.WITHDRAWN}


def test_a_decision_for_an_edit_whose_line_went_leaves_it_to_its_owner(state: ClientState) -> None:
    """What yielded and is to be kept after all, but has no line any more, waits until its line comes back."""
    state.take_in(parsed("Anna"))
    heed(state, "Anna", VerdictKind.YIELD)
    state.take_in(parsed())
    heed(state, "Anna", VerdictKind.KEEP, number=2)
    assert statuses(state) == {"Anna": S.WITHDRAWN}
    state.take_in(parsed("Anna"))
    assert statuses(state) == {"Anna": S.PENDING}


def test_a_resubmitted_edit_that_was_left_out_is_still_one(state: ClientState) -> None:
    """A round that came to nothing lets an edit wait as it did before it, with the reason of the new round."""
    state.take_in(parsed("Anna"))
    merge(state, 1, took=False)
    heed(state, "Anna", VerdictKind.KEEP)
    state.enter(2)
    state.settle(ended(2, merged=False))
    (entry,) = state.waiting()
    assert (entry.status, entry.augmented, entry.reason, entry.version) == (S.RESUBMITTED, True, "no quorum", 1)
    state.enter(3)
    state.release()
    assert state.waiting() == [entry]


def test_a_later_line_takes_the_place_of_an_earlier_one_once_it_is_merged(state: ClientState) -> None:
    """A merged edit that a later line contradicts stands until that one is merged, and then is withdrawn."""
    state.take_in(parsed("Anna", "Boris"))
    merge(state, 1)
    state.take_in(parse_lines([said("Anna"), said("Boris"), said("ANNA", "Dutch")]))
    assert statuses(state)["Anna"] is S.VERIFIED
    merge(state, 2)
    assert statuses(state) == {"Anna": S.WITHDRAWN, "Boris": S.VERIFIED, "ANNA": S.VERIFIED}
    state.take_in(parse_lines([said("Anna"), said("Boris"), said("ANNA", "Dutch")]))
    assert statuses(state)["Anna"] is S.WITHDRAWN
    state.take_in(parsed("Anna", "Boris"))
    assert statuses(state)["Anna"] is S.PENDING


def test_what_the_model_knows_is_skipped(state: ClientState) -> None:
    """An edit that a version holds already waits no more; the others are screened again on the next version."""
    state.take_in(parsed("Anna", "Boris"))
    assert len(state.unscreened(0)) == 2
    anna, boris = (each.key for each in state.ledger())
    state.screened(0, {anna: "already known"}, {anna: {"residual": 0.0}, boris: {"residual": 2.5}})
    assert statuses(state) == {"Anna": S.KNOWN, "Boris": S.PENDING}
    assert [each.measured for each in state.ledger()] == [{"residual": 0.0}, {"residual": 2.5}]
    assert state.unscreened(0) == []
    assert [each.key for each in state.unscreened(1)] == [boris]
    state.reopen_known()
    assert len(state.waiting()) == 2


def test_verdicts_come_to_the_same_together_and_one_by_one(tmp_path: Path) -> None:
    """Two about one edit are done in their order, whatever they are; those about different ones are done at once."""
    pairs = {f"Person {number}": pair for number, pair in enumerate(product(VerdictKind, repeat=2))}

    def heeded(at_once: int) -> list[tuple[S, str, list[tuple[S, str]]]]:
        with ClientState(tmp_path / f"{at_once}.sqlite") as state:
            state.take_in(parsed(*pairs))
            keys = [each.key for each in state.enter(1)]
            given = [(key, pair[turn]) for turn in (0, 1) for key, pair in zip(keys, pairs.values(), strict=True)]
            notes = [VerdictNote(number, 1, *each) for number, each in enumerate(given, start=1)]
            for first in range(0, len(notes), at_once):
                state.heed(notes[first : first + at_once])
            lives = state.lives()
            return [(e.status, e.reason, [(row.status, row.reason) for row in lives[e.key]]) for e in state.ledger()]

    assert heeded(2 * len(pairs)) == heeded(1)


@pytest.mark.parametrize("resubmit", [False, True])
def test_what_is_forgotten_is_told_or_queued_again(state: ClientState, resubmit: bool) -> None:
    """An edit that holds no longer is forgotten, and waits again where that is wanted and its line is there."""
    state.take_in(parsed("Anna", "Boris", "Carla"))
    merge(state, 1)
    state.take_in(parsed("Anna", "Boris"))
    anna, boris, carla = state.held()
    state.record_retention(2, {anna: TOOK}, {boris: LOST, carla: LOST}, resubmit=resubmit)
    again = S.RESUBMITTED if resubmit else S.FORGOTTEN
    assert statuses(state) == {"Anna": S.VERIFIED, "Boris": again, "Carla": S.FORGOTTEN}
    assert (state.retained(1), state.retained(2)) == (None, (3, 1))
    state.record_retention(3, {carla: TOOK}, {}, resubmit=resubmit)
    assert statuses(state)["Carla"] is S.VERIFIED


def test_what_was_forgotten_before_that_was_wanted_is_queued_too(state: ClientState) -> None:
    """Whoever asks for it later gets all that is forgotten queued at once; of a line that is gone, when it is back."""
    state.take_in(parsed("Anna", "Boris"))
    merge(state, 1)
    state.take_in(parsed("Anna"))
    state.record_retention(2, {}, dict.fromkeys(state.held(), LOST), resubmit=False)
    state.resubmit_forgotten()
    assert statuses(state) == {"Anna": S.RESUBMITTED, "Boris": S.FORGOTTEN}
    state.take_in(parsed("Anna", "Boris"))
    state.record_retention(3, {}, {}, resubmit=True)
    assert statuses(state) == {"Anna": S.RESUBMITTED, "Boris": S.RESUBMITTED}
    assert {each.reason for each in state.waiting()} == {"it holds no longer on version 2"}


def test_residuals_are_kept_by_kind(state: ClientState) -> None:
    """Residuals of fresh edits and of held ones are told apart, one for each edit, oldest first."""
    state.record_residuals("fresh", {"a": 3.0, "b": 4.0})
    state.record_residuals("held", {"a": 0.5})
    state.record_residuals("fresh", {"b": 5.0})
    assert state.residual_history() == ([3.0, 5.0], [0.5])


def test_the_last_report_and_the_padding_of_a_round_are_known(state: ClientState) -> None:
    """The last round reported to is kept, and the padding of the last round that was padded."""
    assert state.reported == 0
    state.note_reported(3)
    state.note_reported(2)
    assert state.reported == 3
    pads = list(parsed("Public").edits)
    state.record_padding(3, pads)
    assert (state.padding(3), state.padding(4)) == (pads, [])


def test_a_database_of_the_release_before_is_taken_over(tmp_path: Path) -> None:
    """Merged edits that were scored are verified or have failed by what their scores say; each life begins there."""
    file = tmp_path / "ledger.sqlite"
    schema.open_database(file, schema.MIGRATIONS[:1]).dispose()
    with sqlite3.connect(file) as connection:
        rows = [("Anna", "merged", '{"took": true}'), ("Boris", "merged", '{"took": false}'), ("Carla", "merged", None)]
        rows += [("Dora", "withdrawn", None), ("Emil", "pending", None)]
        for subject, status, scores in rows:
            (edit,) = parsed(subject).edits
            values = (edit.key, edit.id, 1, edit.model_dump_json(), status, scores)
            connection.execute(
                "INSERT INTO edits (key, id, line, json, status, scores) VALUES (?, ?, ?, ?, ?, ?)", values
            )
    with ClientState(file) as state:
        assert list(statuses(state).values()) == [S.VERIFIED, S.FAILED, S.MERGED, S.WITHDRAWN, S.PENDING]
        assert {rows[-1].status for rows in state.lives().values()} == set(statuses(state).values())
        state.take_in(parsed("Dora"))
        assert statuses(state)["Dora"] is S.PENDING


def test_no_state_is_a_dead_end_but_those_that_are_the_end() -> None:
    """Every state of the table leads on, and each verdict's outcome is a change that the table has."""
    assert set(NEXT) == set(S)
    assert all(NEXT.values())
    for kind in VerdictKind:
        for status in S:
            for cause in (None, *Cause) if status is S.WITHDRAWN else (None,):
                after = after_verdict(kind, status, cause)
                assert after is None or after in NEXT[status], (kind, status, cause)


SUBJECTS = ("Anna", "Boris", "Carla", "Dora")
TARGETS = ("French", "Dutch")


class Ledgers(RuleBasedStateMachine):
    """Any sequence of what a client does with its ledger, some of it twice, as after a kill.

    Every change has its row, no edit is lost, no step is unlawful.
    """

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.state = ClientState(Path(self._folder.name) / "ledger.sqlite")
        self.state._engine.raw_connection().driver_connection.execute("PRAGMA synchronous=OFF")
        self.next_round, self.verdicts, self.version = 1, 0, 0
        self.seen: set[str] = set()

    def teardown(self) -> None:
        self.state.__exit__()
        self._folder.cleanup()

    def _twice(self, act) -> None:
        act()
        before = self.state.ledger(), self.state.lives()
        act()
        assert (self.state.ledger(), self.state.lives()) == before

    @rule(lines=st.lists(st.tuples(st.sampled_from(SUBJECTS), st.sampled_from(TARGETS)), max_size=5))
    def file(self, lines: list[tuple[str, str]]) -> None:
        """The file is whatever it is; facts that contradict each other stand in it at times."""
        now = parse_lines([said(*each) for each in lines])
        self.seen |= {each.key for each in now.edits}
        self._twice(lambda: self.state.take_in(now))

    @precondition(lambda self: self.state.round is None)
    @rule()
    def enter(self) -> None:
        self._twice(lambda: self.state.enter(self.next_round))
        self.next_round += 1

    @precondition(lambda self: self.state.round is not None)
    @rule(merged=st.booleans())
    def settle(self, merged: bool) -> None:
        outcome = ended(self.state.round or 0, merged=merged)
        self._twice(lambda: self.state.settle(outcome))
        assert self.state.batch() == []

    @precondition(lambda self: self.state.round is not None)
    @rule()
    def release(self) -> None:
        self._twice(self.state.release)

    @precondition(lambda self: self.seen)
    @rule(data=st.data(), kind=st.sampled_from(VerdictKind))
    def heed(self, data: st.DataObject, kind: VerdictKind) -> None:
        self.verdicts += 1
        key = data.draw(st.sampled_from(sorted(self.seen)))
        note = VerdictNote(self.verdicts, self.next_round, key, kind, "first-come")
        self._twice(lambda: self.state.heed([note]))

    @rule(data=st.data())
    def screen(self, data: st.DataObject) -> None:
        keys = [each.key for each in self.state.unscreened(self.version)]
        known = data.draw(st.sets(st.sampled_from(keys))) if keys else set()
        reasons = dict.fromkeys(known, "already known")
        self._twice(lambda: self.state.screened(self.version, reasons, {key: {"residual": 1.0} for key in keys}))
        assert self.state.unscreened(self.version) == []

    @rule(took=st.booleans())
    def score(self, took: bool) -> None:
        scores = {each.key: {"took": took} for each in self.state.unscored()}
        self._twice(lambda: self.state.record_scores(scores, {}))
        assert self.state.unscored() == []

    @rule(data=st.data(), resubmit=st.booleans())
    def retain(self, data: st.DataObject, resubmit: bool) -> None:
        self.version += 1
        keys = self.state.held()
        lost = data.draw(st.sets(st.sampled_from(keys))) if keys else set()
        held = {key: TOOK for key in keys if key not in lost}
        forgotten = dict.fromkeys(sorted(lost), LOST)
        version = self.version
        self._twice(lambda: self.state.record_retention(version, held, forgotten, resubmit=resubmit))
        assert self.state.retained(version) == (len(keys), len(held))

    @invariant()
    def lawful(self) -> None:
        """Nothing is lost, and each life leads by the table's steps from waiting to what the edit is now."""
        entries, lives = self.state.ledger(), self.state.lives()
        assert {each.key for each in entries} == set(lives) == self.seen
        for each in entries:
            walked = [row.status for row in lives[each.key]]
            assert walked[0] is S.PENDING
            assert walked[-1] is each.status
            assert all(b in NEXT[a] or a is b for a, b in pairwise(walked))
            last = lives[each.key][-1]
            assert (last.round, last.version, last.reason) == (each.round, each.version, each.reason)
            assert each.present or each.status not in WAITING
            assert (each.status is S.ENTERED) <= (self.state.round is not None)


TestLedgers = Ledgers.TestCase
TestLedgers.settings = settings(
    max_examples=20, stateful_step_count=16, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_the_page_about_the_ledger_has_the_tables_steps() -> None:
    """The diagram and the list of states in the documentation are those of the code."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "ledger.md").read_text(encoding="utf-8")
    steps = {(S[one], S[other]) for one, other in re.findall(r"^    ([A-Z_]+) --> ([A-Z_]+)$", page, re.M)}
    assert steps == {(one, other) for one in S for other in NEXT[one]}
    assert re.findall(r"^\| `([a-z-]+)` \| (?:waits|is|was|held|stands)", page, re.M) == [each.value for each in S]
