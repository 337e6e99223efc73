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
        scores = self._tools.score(
            [bare(each.edit) for each in entries], "looking for edits that are already known"
        ).edits
        found = {each.key: one for each, one in zip(entries, scores, strict=True)}
        written = {each.key for each in entries if each.written_elsewhere and answered(found[each.key])}
        residuals = self._residuals([each for each in entries if each.key not in written], found)
        threshold = calibrate(*state.residual_history())
        holds = {key for key, residual in residuals.items() if known(found[key], residual, threshold)}
        said = dict.fromkeys(holds, f"version {version} holds it already")
        said |= dict.fromkeys(written, f"another party has written it: version {version} holds it")
        state.screened(version, said, {key: measured(one, residuals.get(key)) for key, one in found.items()})
        if said:
            self._course.told.append(f"{len(said)} of {len(entries)} edits are already known")

    def _residuals(self, entries: Sequence[LedgerEntry], found: dict[str, EditScore]) -> dict[str, float]:
        """Of the edits that the model answers, by key."""
        candidates = [each for each in entries if answered(found[each.key])]
        values = self._tools.workshop.probe([each.edit for each in candidates])
        return {each.key: value for each, value in zip(candidates, values, strict=True)}

    # ------------------------------------------------------------------------------------------------ after a round

    def score(self, version: int) -> None:
        """Scores what was just merged, and a sample of what was merged before."""
        tools = self._tools
        for round_, entries in by_round(tools.state.unscored()).items():
            scores = self._tools.score([each.edit for each in entries], f"round {round_}: scoring")
            found = {each.key: verdict(one) for each, one in zip(entries, scores.edits, strict=True)}
            tools.state.record_scores(found, {round_: means(scores)})
            merged_in = entries[0].version if entries[0].version is not None else version
            self._course.told.append(published_line(round_, merged_in, len(entries), scores))
        self._retain(version)

    def _retain(self, version: int) -> None:
        """Measures what the version has kept of earlier rounds, and what residuals the edits of the last one have."""
        tools, state = self._tools, self._tools.state
        held = state.held()
        self._note_residuals([each for each in held if each.version == version], version)
        earlier = [each for each in held if each.version is not None and each.version < version]
        chosen = sample((each.key for each in earlier), version, tools.retention_sample)
        entries = [each for each in earlier if each.key in chosen]
        scores = (
            self._tools.score([each.edit for each in entries], "scoring edits of earlier rounds").edits
            if entries
            else ()
        )
        found = judged({each.key: verdict(one) for each, one in zip(entries, scores, strict=True)})
        new = [each for each in entries if each.key in found.forgotten and each.status is EditStatus.VERIFIED]
        state.record_retention(version, found.held, found.forgotten, resubmit=tools.forgotten == "resubmit")
        if new:
            self._course.told.append(forgotten_line(version, found, len(new)))

    def _note_residuals(self, entries: Sequence[LedgerEntry], version: int) -> None:
        """Those of a few edits that were merged and are answered tell what a residual is like that the model holds."""
        if not self._tools.skip_known:
            return
        right = {each.key: each for each in entries if each.scores is not None and each.scores["correct"] == 1.0}
        chosen = sorted(sample(right, version, SAMPLE))
        values = self._tools.workshop.probe([right[key].edit for key in chosen])
        self._tools.state.record_residuals("held", dict(zip(chosen, values, strict=True)))

    def report(self, round_: int) -> None:
        """Tells the server how our merged edits do: rates, and blinded names of those that failed where it asks so."""
        tools = self._tools
        version = tools.model.base.version
        failed = tools.claims(tools.state.failed()) if tools.settings.detection == "on-failure" else []
        retained = tools.state.retained(version) or (0, 0)
        tools.news.give(tools.federation.report(round_, version, retained, failed, tools.key_check))
        tools.state.note_reported(round_)


def measured(score: EditScore, residual: float | None) -> dict[str, Any]:
    """What screening found of one edit; residual: where z was sought."""
    said = {"correct": score.correct, "probability": score.probability}
    return said if residual is None else {**said, "residual": residual}


def forgotten_line(version: int, found: Retention, new: int) -> str:
    """`version 5: 38 of 40 edits of earlier rounds hold; 2 are forgotten since the last look`."""
    kept = f"{len(found.held)} of {found.tested} edits of earlier rounds hold"
    return f"version {version}: {kept}; {new} forgotten since the last look"
