"""Screening, claims, verdicts and reports as a client's steps do them: its ledger is real, the rest is faked."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from collabedit.client import equipment, ledger
from collabedit.client.connection import StaleRoundError
from collabedit.client.daemon import Daemon
from collabedit.client.decide import Act, decide
from collabedit.client.edit_life import EditStatus, VerdictKind, VerdictNote
from collabedit.client.metrics import EditScore, Kinds, Scores
from collabedit.client.news import Changes
from collabedit.client.snapshot import Membership, Outcome, Phase, Snapshot, Verdict, Version
from collabedit.client.state import ClientState
from collabedit.client.state_folder import StateFolder
from collabedit.client.steps import Steps
from collabedit.common.blinding import FederationKey
from collabedit.common.edits import Edit, Parsed
from collabedit.common.errors import RoundError

KEY = FederationKey(1, bytes(32))
LEAST = 4


@dataclass
class FakeModel:
    """A model that holds some edits, finds some likelier than what was true, and leaves a residual of each."""

    holds: set[str] = field(default_factory=set)
    likelier: set[str] = field(default_factory=set)
    residual: dict[str, float] = field(default_factory=dict)
    base: Version = field(default_factory=lambda: Version(0))
    applied: int = 0
    loaded: None = None
    asked: list[int] = field(default_factory=list)

    def catch_up(self, version: Version) -> None:
        self.base = version

    def restart(self) -> None:
        self.applied = 0

    @property
    def digests(self) -> set[str]:
        return set()

    def score(self, _: object, edits: Sequence[Edit], **__: object) -> Scores:
        """As the client's metrics, in one pass."""
        self.asked += [len(edits)] if edits else []
        each = tuple(self._scored(edit) for edit in edits)
        none = Kinds(None, None, None)
        return Scores("counterfact", none, none, none, each)

    def _scored(self, edit: Edit) -> EditScore:
        right = Kinds(float(edit.key in self.holds), None, None)
        success = Kinds(float(edit.key in self.holds | self.likelier), None, None)
        return EditScore(edit.id, success, right, right, 0.5)

    def probe(self, edits: Sequence[Edit], _: object = None) -> list[float]:
        """As the workshop's."""
        return [self.residual.get(edit.key, 9.0) for edit in edits]


@dataclass
class FakeFederation:
    """A server that says what it is told to say, and keeps what it is told."""

    now_: Snapshot = field(default_factory=lambda: Snapshot(1, Phase.OPEN, revision=1, base_version=0))
    given: list[Verdict] = field(default_factory=list)
    calls: list[tuple] = field(default_factory=list)
    closed: bool = False

    def change(self, **values: object) -> None:
        self.now_ = replace(self.now_, revision=self.now_.revision + 1, **values)  # type: ignore[arg-type]

    def judge(self, kind: VerdictKind, *edits: Edit) -> None:
        """A verdict about each edit, by policy first-come."""
        for edit in edits:
            self.given.append(Verdict(len(self.given) + 1, self.now_.round, KEY.claim(edit), kind, "first-come"))
        self.change(settled=True, newest_verdict=len(self.given))

    def next_round(self, version: int) -> None:
        """The round under way ended elsewhere, with a new version."""
        self.change(round=self.now_.round + 1, base_version=version, member=Membership.ABSENT)

    def now(self) -> Snapshot:
        return self.now_

    def version(self, number: int) -> Version:
        return Version(number)

    def enter(self, *said: object) -> Snapshot:
        self.calls.append(("enter", *said))
        if self.closed:
            raise StaleRoundError("too late")
        self.change(member=Membership.ENTERED)
        return self.now_

    def leave(self, *said: object) -> Snapshot:
        self.calls.append(("leave", *said))
        self.change(member=Membership.OUT)
        return self.now_

    def report(self, *said: object) -> Snapshot:
        self.calls.append(("report", *said))
        return self.now_

    def verdicts(self, after: int) -> list[Verdict]:
        self.calls.append(("verdicts", after))
        return [each for each in self.given if each.number > after]


class Party:
    """A client at work on fakes: its ledger is real, and survives `kill`."""

    def __init__(self, folder: Path, edits: Sequence[Edit], detection: str, **settings: object) -> None:
        self.model, self.federation, self._settings = FakeModel(), FakeFederation(), settings
        self.folder = StateFolder(folder / "state")
        self.folder.make()
        self.state, self.edits, self.detection = ClientState(self.folder.ledger), edits, detection
        self.state.take_in(Parsed(tuple(edits), tuple(range(1, len(edits) + 1)), ()))
        self.taken: list[Act] = []
        self.kill()

    def kill(self) -> None:
        """What a new process has: nothing but the ledger."""
        workshop = SimpleNamespace(probe=self.model.probe, check=lambda edit: None)
        news = SimpleNamespace(latest=self.federation.now, give=lambda now: None)
        voice = SimpleNamespace(say=lambda line: None, progress=quiet)
        self.steps = Steps(
            equipment.Equipment(
                settings=SimpleNamespace(min_edits=LEAST, detection=self.detection),
                folder=self.folder, state=self.state, federation=self.federation, model=self.model, workshop=workshop,
                news=news, intake=SimpleNamespace(blocked=False), voice=voice, batch_tokens=None,
                key=None if self.detection == "off" else KEY, **self._settings,
            )  # type: ignore[arg-type]
        )  # fmt: skip

    def step(self) -> Act:
        """The next step, done unless it is heavy work."""
        action = decide(self.steps.place(), self.federation.now())
        self.taken.append(action.act)
        if action.act not in (Act.WAIT, Act.FIND_TARGETS):
            self.steps.do(action)
        return action.act

    def go_on(self) -> Act:
        """Steps until there is nothing to do but to wait, or to search."""
        while (act := self.step()) not in (Act.WAIT, Act.FIND_TARGETS):
            pass
        return act

    def said(self, call: str) -> list[tuple]:
        """What the server was told by calls of a name."""
        return [each[1:] for each in self.federation.calls if each[0] == call]

    def merge(self, version: int) -> None:
        """The round under way is published with our edits, the next one opens on it."""
        assert self.state.round is not None
        self.state.settle(Outcome(self.state.round, Phase.PUBLISHED, Membership.CONTRIBUTED, version))
        self.federation.next_round(version)
        self.kill()

    def statuses(self) -> list[EditStatus]:
        """Of its edits, in the file's order."""
        return [each.status for each in self.state.entries([edit.key for edit in self.edits])]


@contextmanager
def quiet(_: str) -> Iterator[object]:
    """Progress that nobody sees."""
    yield lambda done, total: None


@pytest.fixture
def party(tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a party."""
    made: list[Party] = []

    def make(count: int = 6, detection: str = "pre-merge", **settings: object) -> Party:
        one = Party(tmp_path, tools.facts(0, count), detection, **settings)
        monkeypatch.setattr(equipment, "score", one.model.score)
        made.append(one)
        return one

    yield make
    for each in made:
        with each.state:
            pass


def test_claims_of_the_whole_batch_are_told_on_entering(party) -> None:
    """Blinded names in the batch's order with the key's check; no work begins before they have been compared."""
    one = party()
    one.federation.change(settled=False)
    assert one.go_on() is Act.WAIT
    assert one.said("enter") == [(1, 0, 6, [KEY.claim(edit) for edit in one.edits], KEY.check)]
    one.federation.change(settled=True)
    assert one.go_on() is Act.FIND_TARGETS


@pytest.mark.parametrize("detection", ["off", "on-failure"])
def test_without_comparing_before_the_merge_no_claims_are_told(party, detection: str) -> None:
    """Entering says how many edits there are, and no more."""
    one = party(detection=detection)
    assert one.go_on() is Act.FIND_TARGETS
    assert one.said("enter")[0][:4] == (1, 0, 6, [])


def test_verdicts_are_heeded_by_their_kind(party) -> None:
    """What yields is withdrawn, what another party writes waits, what is undecided is in conflict, the rest is kept."""
    one = party(8)
    one.federation.change(settled=False)
    one.go_on()
    keep, give_way, same, open_, *_ = one.edits
    one.federation.judge(VerdictKind.KEEP, keep)
    one.federation.judge(VerdictKind.YIELD, give_way)
    one.federation.judge(VerdictKind.DUPLICATE, same)
    one.federation.judge(VerdictKind.UNDECIDED, open_)
    assert one.go_on() is Act.FIND_TARGETS
    entered = EditStatus.ENTERED
    expected = [entered, EditStatus.WITHDRAWN, EditStatus.PENDING, EditStatus.IN_CONFLICT]
    assert one.statuses() == expected + 4 * [entered]
    assert one.steps.course.told[1] == (
        "round 1: another party's edit of the same fact is kept (policy first-come): 1 edit(s)"
    )
    assert one.said("verdicts") == [(0,)]


@pytest.mark.parametrize("at", range(4))
def test_verdicts_are_heeded_once_whenever_the_client_is_killed(party, at: int) -> None:
    """A kill before, while or after they are asked for: the ledger comes to the same, with one row for each."""
    one = party(8)
    one.federation.change(settled=False)
    one.go_on()
    one.federation.judge(VerdictKind.YIELD, *one.edits[:2])
    for number in range(4):
        if number == at:
            one.kill()
        one.step()
    assert one.statuses() == 2 * [EditStatus.WITHDRAWN] + 6 * [EditStatus.ENTERED]
    lives = [[row.status for row in one.state.life(edit.key)] for edit in one.edits[:2]]
    assert lives == 2 * [[EditStatus.PENDING, EditStatus.ENTERED, EditStatus.WITHDRAWN]]


def test_a_verdict_about_no_edit_of_this_ledger_is_passed_over(party, tools) -> None:
    """From a state folder that is no more: it is not asked for again."""
    one = party()
    one.federation.judge(VerdictKind.YIELD, tools.facts(20, 1)[0])
    assert one.go_on() is Act.FIND_TARGETS
    assert one.state.heeded == 1
    assert one.statuses() == 6 * [EditStatus.ENTERED]


def test_a_verdict_finds_its_edit_after_the_key_was_rotated(party, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was told under the earlier key is decided under its name: the ledger remembers what it told."""
    one = party(8)
    one.federation.change(settled=False)
    one.go_on()
    one.federation.judge(VerdictKind.YIELD, one.edits[0])
    monkeypatch.setattr(sys.modules[__name__], "KEY", FederationKey(2, b"\1" * 32))
    one.kill()
    assert one.go_on() is Act.FIND_TARGETS
    assert one.statuses() == [EditStatus.WITHDRAWN] + 7 * [EditStatus.ENTERED]


def test_verdicts_that_leave_too_little_end_our_part_in_the_round(party) -> None:
    """The client leaves with that reason, says it again to nobody, and its other edits wait for the next round."""
    one = party(6)
    one.federation.change(settled=False)
    one.go_on()
    one.federation.judge(VerdictKind.YIELD, *one.edits[:3])
    assert one.go_on() is Act.WAIT
    assert one.said("leave") == [(1, "verdicts left it fewer edits than the federation takes at once")]
    assert one.statuses() == 3 * [EditStatus.WITHDRAWN] + 3 * [EditStatus.PENDING]
    one.kill()
    assert one.go_on() is Act.WAIT
    assert len(one.said("leave")) == 1


def test_public_facts_make_up_for_what_verdicts_took(party, tools) -> None:
    """With --padding the client stays, with facts that the model answers; the ledger does not have them."""
    facts = tools.facts(20, 3)
    one = party(6, padding=tuple(facts))
    one.model.holds = {facts[1].key}
    one.federation.change(settled=False)
    one.go_on()
    one.federation.judge(VerdictKind.YIELD, *one.edits[:3])
    assert one.go_on() is Act.FIND_TARGETS
    assert one.said("leave") == []
    assert one.state.padding(1) == [facts[1]]
    assert len(one.state.ledger()) == 6


def test_what_the_model_holds_is_skipped_and_said(party) -> None:
    """Without a history, what is answered and needs no search; with any residual it is edited all the same."""
    one = party(detection="off")
    known, near, *_ = one.edits
    one.model.holds = {known.key, near.key}
    one.model.residual = {known.key: 0.0, near.key: 0.5}
    assert one.go_on() is Act.FIND_TARGETS
    assert one.statuses() == [EditStatus.KNOWN] + 5 * [EditStatus.ENTERED]
    assert one.steps.course.told == ["1 of 6 edits are already known"]
    assert one.model.asked == [6]


def test_the_federations_own_history_says_what_a_small_residual_is(party) -> None:
    """Residuals of edits before and after they were merged: what lies nearer to the latter is known."""
    one = party(detection="off")
    one.state.record_residuals("fresh", {f"fresh-{number}": 4.0 for number in range(8)})
    one.state.record_residuals("held", {f"held-{number}": 1.0 for number in range(8)})
    near, far, *_ = one.edits
    one.model.holds = {near.key, far.key}
    one.model.residual = {near.key: 2.0, far.key: 3.0}
    one.go_on()
    assert one.statuses()[:2] == [EditStatus.KNOWN, EditStatus.ENTERED]


def test_residuals_of_merged_edits_are_measured_where_they_are_needed(party, tools) -> None:
    """No search goes before a round whose edits are all new; where some are answered a sample of ours is looked at."""
    one = party(detection="off")
    one.go_on()
    one.state.record_residuals("fresh", {edit.key: 4.0 for edit in one.edits})
    one.model.holds = {edit.key for edit in one.edits}
    one.model.residual = {edit.key: 1.0 for edit in one.edits}
    one.merge(1)
    one.go_on()
    assert one.state.residual_history()[1] == []
    more = tools.facts(10, 6)
    one.state.take_in(Parsed((*one.edits, *more), tuple(range(1, 13)), ()))
    one.model.holds |= {more[0].key, more[1].key}
    one.model.residual |= {more[0].key: 2.0, more[1].key: 3.0}
    one.go_on()
    assert one.state.residual_history()[1] == 6 * [1.0]
    known, again = one.state.entries([edit.key for edit in more[:2]])
    assert (known.status, again.status) == (EditStatus.KNOWN, EditStatus.ENTERED)


def test_what_was_skipped_waits_again_where_a_later_version_does_not_answer_it(party) -> None:
    """An edit that others' weights held is written once they hold it no longer; it is not looked at twice a version."""
    one = party(6, detection="off")
    first, second, *_ = one.edits
    one.model.holds = {first.key, second.key}
    one.model.residual = {first.key: 0.0, second.key: 0.0}
    one.go_on()
    assert one.statuses() == 2 * [EditStatus.KNOWN] + 4 * [EditStatus.ENTERED]
    one.model.holds = {edit.key for edit in one.edits[1:]}
    one.merge(1)
    one.go_on()
    assert one.statuses() == [EditStatus.PENDING, EditStatus.KNOWN] + 4 * [EditStatus.VERIFIED]
    (waits,) = one.state.waiting()
    assert waits.reason == "version 1 does not hold it any more"
    assert one.steps.course.told[-1] == "version 1: 1 of 2 edits that were already known wait again"
    asked = len(one.model.asked)
    one.kill()
    one.go_on()
    assert len(one.model.asked) == asked


def test_what_another_party_wrote_is_known_once_it_is_answered(party) -> None:
    """A duplicate waits for the new weights; there its answer decides, whatever its residual."""
    one = party(6)
    one.federation.change(settled=False)
    one.go_on()
    one.federation.judge(VerdictKind.DUPLICATE, *one.edits[:2])
    one.go_on()
    one.model.holds = {one.edits[0].key}
    one.merge(1)
    one.go_on()
    known, again = one.state.entries([edit.key for edit in one.edits[:2]])
    assert (known.status, known.reason) == (EditStatus.KNOWN, "another party has written it: version 1 holds it")
    assert again.status is EditStatus.PENDING


def is_done(one: Party) -> bool:
    """Whether a client with `--once` would end here; raises what is missing."""
    config = SimpleNamespace(once=True, edits="mine.jsonl")
    keys = [edit.key for edit in one.edits]
    tools = one.steps._tools
    daemon = Daemon(config, tools, Changes(), keys=keys, on_result=lambda _: None)  # type: ignore[arg-type]
    return daemon._finished(one.steps.place(), one.federation.now())


def left_to_others(one: Party) -> None:
    """Three edits yield and three are another party's to write: this client is out of the round."""
    one.federation.change(settled=False)
    one.go_on()
    one.federation.judge(VerdictKind.YIELD, *one.edits[:3])
    one.federation.judge(VerdictKind.DUPLICATE, *one.edits[3:])
    assert one.go_on() is Act.WAIT


@pytest.mark.parametrize("skip_known", [True, False])
def test_a_client_whose_edits_others_write_is_done_once_they_have(party, skip_known: bool) -> None:
    """It waits for the end of their round; there it ends well, though the weights do not answer with every edit."""
    one = party(6, skip_known=skip_known)
    left_to_others(one)
    assert not is_done(one)
    one.model.holds = {one.edits[3].key}
    one.federation.next_round(1)
    one.go_on()
    assert is_done(one)
    known = EditStatus.KNOWN if skip_known else EditStatus.PENDING
    assert one.statuses() == 3 * [EditStatus.WITHDRAWN] + [known] + 2 * [EditStatus.PENDING]


def test_edits_that_others_were_to_write_wait_where_their_round_came_to_nothing(party) -> None:
    """Nobody has written them: the client says how many are missing, as for edits that are its own alone."""
    one = party(6)
    left_to_others(one)
    one.federation.next_round(0)
    one.go_on()
    with pytest.raises(RoundError, match=r"3 edit\(s\) wait.*1 missing"):
        is_done(one)


def test_too_few_edits_of_ones_own_are_missing_beside_those_of_others(party, tools) -> None:
    """An edit that nobody else writes is not left to anybody."""
    one = party(6)
    left_to_others(one)
    one.federation.next_round(1)
    one.model.holds = {edit.key for edit in one.edits[3:5]}
    more = tools.facts(10, 1)
    one.state.take_in(Parsed((*one.edits, *more), tuple(range(1, 8)), ()))
    one.go_on()
    with pytest.raises(RoundError, match=r"2 edit\(s\) wait.*2 missing"):
        is_done(one)


def test_nothing_is_screened_where_that_is_not_wanted(party) -> None:
    """With --no-skip-known every edit is edited."""
    one = party(detection="off", skip_known=False)
    one.model.holds = {edit.key for edit in one.edits}
    assert one.go_on() is Act.FIND_TARGETS
    assert one.model.asked == []


def test_a_round_is_reported_to_once(party) -> None:
    """Rates of earlier rounds' edits, and claims of those that failed; a kill after the answer repeats it at most."""
    one = party(detection="on-failure", skip_known=False)
    one.go_on()
    one.model.holds = {edit.key for edit in one.edits[1:]}
    one.merge(1)
    assert one.go_on() is Act.WAIT
    assert one.said("report") == [(2, 1, (0, 0), [KEY.claim(one.edits[0])], KEY.check)]
    one.kill()
    one.go_on()
    assert len(one.said("report")) == 1
    one.model.holds -= {one.edits[5].key}
    one.federation.next_round(2)
    one.go_on()
    assert one.said("report")[1] == (3, 2, (5, 4), [KEY.claim(one.edits[0])], KEY.check)
    assert (
        one.steps.course.told[-1] == "version 2: 4 of 5 edits of earlier rounds hold; 1 forgotten since the last look"
    )


def test_the_winner_of_a_conflict_submits_again_with_its_paraphrases(party) -> None:
    """A failed edit that is kept waits again, augmented: four edits come of it, as many as this federation takes."""
    one = party(4, detection="on-failure", skip_known=False)
    first = one.edits[0].model_copy(
        update={"paraphrase_prompts": tuple(f"{text} {one.edits[0].subject}" for text in ("As for", "On", "Of"))}
    )
    one.state.take_in(Parsed((first, *one.edits[1:]), (1, 2, 3, 4), ()))
    one.go_on()
    one.model.holds = {edit.key for edit in one.edits[1:]}
    one.merge(1)
    one.go_on()
    one.federation.judge(VerdictKind.KEEP, first)
    assert one.go_on() is Act.FIND_TARGETS
    assert one.said("enter")[-1][2] == 4
    assert [each.key for each in one.state.batch()] == [first.key]


@pytest.mark.parametrize(
    ("detection", "status"), [("on-failure", EditStatus.FAILED), ("pre-merge", EditStatus.VERIFIED)]
)
def test_where_failures_are_compared_an_edit_took_if_the_model_answers_with_it(
    party, detection: str, status: EditStatus
) -> None:
    """Of edits that contradict each other each can be likelier than what was true before, and none be the answer:
    compared on failure they count as failed, or nobody would ever hear of them.
    """
    one = party(4, detection=detection, skip_known=False)
    one.go_on()
    spoilt = one.edits[0]
    one.model.holds, one.model.likelier = {edit.key for edit in one.edits[1:]}, {spoilt.key}
    one.merge(1)
    one.go_on()
    assert one.statuses() == [status, *3 * [EditStatus.VERIFIED]]
    took = 3 if status is EditStatus.FAILED else 4
    assert f"4 of 4 edits merged, {took} took" in one.steps.course.told[0]
    assert one.said("report")[-1][3] == ([KEY.claim(spoilt)] if status is EditStatus.FAILED else [])


@pytest.mark.parametrize(
    ("forgotten", "status"), [("resubmit", EditStatus.RESUBMITTED), ("tell", EditStatus.FORGOTTEN)]
)
def test_what_is_forgotten_is_written_again_where_that_is_wanted(party, forgotten: str, status: EditStatus) -> None:
    """With --forgotten resubmit it waits for a round; else its owner is told and it stays as it is."""
    one = party(detection="off", skip_known=False, forgotten=forgotten)
    one.go_on()
    one.model.holds = {edit.key for edit in one.edits}
    one.merge(1)
    one.go_on()
    one.model.holds -= {one.edits[0].key}
    one.federation.next_round(2)
    one.go_on()
    assert one.statuses() == [status] + 5 * [EditStatus.VERIFIED]


def test_a_server_of_the_release_before_gets_neither_claims_nor_reports(party) -> None:
    """It never says that a round is settled; the round goes on as it always did."""
    one = party(detection="off")
    one.federation.change(settled=False)
    assert one.go_on() is Act.FIND_TARGETS
    one.merge(1)
    assert one.go_on() is Act.WAIT
    assert one.said("report") == []
    assert one.said("verdicts") == []


def test_where_a_client_stands_is_told_without_reading_its_edits(party, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they wait, are in a round or were merged: to find that there is nothing to do costs no look at them."""

    def stands(one: Party) -> Act:
        with monkeypatch.context() as patch:
            patch.setattr(ledger, "_entry", lambda row: pytest.fail("an edit was read"))
            return decide(one.steps.place(), one.federation.now()).act

    one = party(detection="off")
    one.federation.change(phase=Phase.MERGING)
    one.go_on()
    assert stands(one) is Act.WAIT
    one.federation.change(phase=Phase.OPEN)
    one.go_on()
    assert stands(one) is Act.FIND_TARGETS
    one.model.holds = {edit.key for edit in one.edits}
    one.merge(1)
    assert stands(one) is Act.CATCH_UP
    one.go_on()
    assert stands(one) is Act.WAIT


def test_a_round_that_closed_meanwhile_gives_the_edits_back(party) -> None:
    """Entering came too late: they wait as before, and are not screened again on the same version."""
    one = party(detection="off")
    one.federation.closed = True
    with pytest.raises(StaleRoundError):
        one.go_on()
    assert one.statuses() == 6 * [EditStatus.PENDING]
    one.go_on()
    assert one.taken.count(Act.SCREEN) == 1


def test_what_was_overwritten_is_verified_again_where_the_weights_hold_it_again(party) -> None:
    """After a rollback of the round that overwrote it. What an admin is to decide stays undecided."""
    one = party(6, skip_known=False)
    one.go_on()
    one.model.holds = {edit.key for edit in one.edits}
    one.merge(1)
    one.go_on()
    over, open_, *_ = one.edits
    one.model.holds -= {over.key}
    one.federation.judge(VerdictKind.OVERWRITTEN, over)
    one.federation.judge(VerdictKind.UNDECIDED, open_)
    one.federation.next_round(2)
    one.go_on()
    assert one.statuses() == [*2 * [EditStatus.IN_CONFLICT], *4 * [EditStatus.VERIFIED]]
    one.model.holds |= {over.key}
    one.federation.next_round(3)
    one.go_on()
    assert one.statuses() == [EditStatus.VERIFIED, EditStatus.IN_CONFLICT, *4 * [EditStatus.VERIFIED]]
    (entry,) = one.state.entries([over.key])
    assert (entry.reason, entry.scores["correct"]) == ("version 3 holds it again", 1.0)
    assert "version 3: 1 edit(s) that were overwritten hold again" in one.steps.course.told


def test_what_a_later_round_overwrote_is_told_without_a_policy() -> None:
    """A later round takes an earlier one's place under each policy: to name one would point to the wrong setting."""
    told = VerdictNote(1, 3, "key", VerdictKind.OVERWRITTEN, "last-come").reason
    assert told == "round 3: another party's edit of the same fact overwrote it"
