"""The steps that look at what has been merged."""

from __future__ import annotations

from collabedit.client.equipment import Course, Equipment
from collabedit.client.metrics import score
from collabedit.client.report import by_round, means, published_line, verdict


class LookingBack:
    """How our merged edits do on the present weights."""

    def __init__(self, tools: Equipment, course: Course) -> None:
        self._tools = tools
        self._course = course

    def score(self, version: int) -> None:
        """Scores what was just merged."""
        tools = self._tools
        for round_, entries in by_round(tools.state.unscored()).items():
            with tools.voice.progress(f"round {round_}: scoring") as progress:
                edits = [each.edit for each in entries]
                scores = score(tools.model.loaded, edits, batch=tools.scoring_tokens, on_progress=progress)
            found = {each.key: verdict(one) for each, one in zip(entries, scores.edits, strict=True)}
            tools.state.record_scores(found, {round_: means(scores)})
            merged_in = entries[0].version if entries[0].version is not None else version
            self._course.told.append(published_line(round_, merged_in, len(entries), scores))
