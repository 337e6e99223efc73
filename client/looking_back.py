"""The steps that look at what the model holds: of the edits that wait, and of those that were merged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from collabedit.client.edit_life import EditStatus, LedgerEntry
from collabedit.client.equipment import Course, Equipment
from collabedit.client.metrics import EditScore
from collabedit.client.report import by_round, means, published_line, verdict
from collabedit.client.retention import Retention, judged, sample
from collabedit.client.screening import SAMPLE, answered, bare, calibrate, known
from collabedit.common.edits import Edit


class LookingBack:
    """How our edits do on the present weights."""

    def __init__(self, tools: Equipment, course: Course) -> None:
        self._tools = tools
        self._course = course

    # ------------------------------------------------------------------------------------------------ before a round

    def screen(self, version: int) -> None:
        """Marks which of the waiting edits the model holds already.

        Those that it answers are candidates. What another party was to write is known where it is answered; of the
        others z is sought, and what that leaves of them decides.
        """
        state = self._tools.state
        entries = state.unscreened(version)
        found = self._scored(entries, "looking for edits that are already known")
        written = {each.key for each in entries if each.written_elsewhere and answered(found[each.key])}
        candidates = [each for each in entries if each.key not in written and answered(found[each.key])]
        if candidates:
            self._note_held(version)
        threshold = calibrate(*state.residual_history())
        residuals = self._residuals(candidates)
        holds = {key for key, residual in residuals.items() if known(found[key], residual, threshold)}
        said = dict.fromkeys(holds, f"version {version} holds it already")
        said |= dict.fromkeys(written, f"another party has written it: version {version} holds it")
        state.screened(version, said, {key: measured(one, residuals.get(key)) for key, one in found.items()})
        if said:
            self._course.told.append(f"{len(said)} of {len(entries)} edits are already known")

    def _scored(self, entries: Sequence[LedgerEntry], what: str) -> dict[str, EditScore]:
        """How each does on its own prompt, by key."""
        scores = self._tools.score([bare(each.edit) for each in entries], what).edits
        return dict(zip(keys_of(entries), scores, strict=True))

    def _note_held(self, version: int) -> None:
        """Measures on these weights what residuals a few of our merged edits have, as far as they are answered."""
        state = self._tools.state
        entries = state.entries(sample(state.keys([EditStatus.VERIFIED]), version, SAMPLE))
        found = self._scored(entries, "looking at edits that were merged")
        right = [each for each in entries if answered(found[each.key])]
        state.record_residuals("held", self._residuals(right))

    def _residuals(self, entries: Sequence[LedgerEntry]) -> dict[str, float]:
        """‖z − h‖ on these weights, by key."""
        if not entries:
            return {}
        with self._tools.voice.progress(f"searching for {len(entries)} targets, to see what is known") as progress:
            values = self._tools.workshop.probe(edits_of(entries), progress)
        return dict(zip(keys_of(entries), values, strict=True))

    # ------------------------------------------------------------------------------------------------ after a round

    def score(self, version: int) -> None:
        """Scores what was just merged, and samples of what was merged or skipped before."""
        tools = self._tools
        compared = tools.settings.detection == "on-failure"
        for round_, entries in by_round(tools.state.unscored()).items():
            scores = tools.score(edits_of(entries), f"round {round_}: scoring")
            each = [verdict(one, answering=compared) for one in scores.edits]
            found = dict(zip(keys_of(entries), each, strict=True))
            tools.state.record_scores(found, {round_: means(scores)})
            merged_in = entries[0].version if entries[0].version is not None else version
            self._course.told.append(published_line(round_, merged_in, sum(one["took"] for one in each), scores))
        self._look_at_known(version)
        self._look_at_overwritten(version)
        self._retain(version)

    def _look_at_known(self, version: int) -> None:
        """Lets edits wait again that earlier weights held without them, and these do not."""
        tools, state = self._tools, self._tools.state
        entries = state.entries(sample(state.known(before=version), version, tools.retention_sample))
        found = self._scored(entries, "looking at edits that were already known")
        lost = [key for key, one in found.items() if not answered(one)]
        if lost:
            state.reopen_known(lost, f"version {version} does not hold it any more")
            said = f"{len(lost)} of {len(entries)} edits that were already known wait again"
            self._course.told.append(f"version {version}: {said}")

    def _look_at_overwritten(self, version: int) -> None:
        """What was overwritten is verified again where the model answers with it again: the round was rolled back."""
        tools, state = self._tools, self._tools.state
        entries = state.entries(sample(state.overwritten(), version, tools.retention_sample))
        scores = tools.score(edits_of(entries), "looking at edits that were overwritten").edits
        back = {each.key: verdict(one) for each, one in zip(entries, scores, strict=True) if answered(one)}
        if back:
            state.hold_again(version, back)
            self._course.told.append(f"version {version}: {len(back)} edit(s) that were overwritten hold again")

    def _retain(self, version: int) -> None:
        """Measures what the version has kept of earlier rounds."""
        tools, state = self._tools, self._tools.state
        entries = state.entries(sample(state.held(before=version), version, tools.retention_sample))
        scores = tools.score(edits_of(entries), "scoring edits of earlier rounds").edits
        found = judged(dict(zip(keys_of(entries), map(verdict, scores), strict=True)))
        new = [each for each in entries if each.key in found.forgotten and each.status is EditStatus.VERIFIED]
        state.record_retention(version, found.held, found.forgotten, resubmit=tools.forgotten == "resubmit")
        if new:
            self._course.told.append(forgotten_line(version, found, len(new)))

    def report(self, round_: int) -> None:
        """Tells the server how our merged edits do: rates, and blinded names of those that failed where it asks so."""
        tools = self._tools
        version = tools.model.base.version
        failed = tools.claims(tools.state.failed()) if tools.settings.detection == "on-failure" else []
        retained = tools.state.retained(version) or (0, 0)
        tools.news.give(tools.federation.report(round_, version, retained, failed, tools.key_check))
        tools.state.note_reported(round_)


def keys_of(entries: Sequence[LedgerEntry]) -> list[str]:
    """What the edits of ledger entries say, as digests."""
    return [each.key for each in entries]


def edits_of(entries: Sequence[LedgerEntry]) -> list[Edit]:
    """The edits of ledger entries themselves."""
    return [each.edit for each in entries]


def measured(score: EditScore, residual: float | None) -> dict[str, Any]:
    """What screening found of one edit; residual: where z was sought."""
    said = {"correct": score.correct, "probability": score.probability}
    return said if residual is None else {**said, "residual": residual}


def forgotten_line(version: int, found: Retention, new: int) -> str:
    """`version 5: 38 of 40 edits of earlier rounds hold; 2 are forgotten since the last look`."""
    kept = f"{len(found.held)} of {found.tested} edits of earlier rounds hold"
    return f"version {version}: {kept}; {new} forgotten since the last look"
