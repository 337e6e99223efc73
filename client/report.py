"""What the client says about its edits when a round is over: one object for programs, one line for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from collabedit.client.metrics import EditScore, Scores
from collabedit.client.state import LedgerEntry, RoundEntry


def verdict(score: EditScore) -> dict[str, Any]:
    """One edit on the new weights: whether it took, and its figures (fractions of 1; None: nothing to measure by)."""
    return {
        "took": score.succeeded,
        "ES": score.efficacy,
        "PS": score.paraphrase,
        "NS": score.neighborhood,
        "correct": score.correct,
        "probability": score.probability,
    }


def means(scores: Scores) -> dict[str, float | None]:
    """ES, PS, NS and their Score over the edits of a round, and the share of target tokens that are right."""
    return {**scores.row(), "correct": scores.correct}


def edit_row(entry: LedgerEntry) -> dict[str, Any]:
    """One edit and what became of it, as an object."""
    return {
        "id": entry.edit.id,
        "line": entry.line,
        "key": entry.key,
        "subject": entry.edit.subject,
        "status": entry.status.value,
        "round": entry.round,
        "version": entry.version,
        "reason": entry.reason,
        "scores": dict(entry.scores) if entry.scores is not None else None,
    }


def result(federation: str, entries: Sequence[LedgerEntry], rounds: Sequence[RoundEntry]) -> dict[str, Any]:
    """The object that `--once --json` prints and `--report` writes.

    `round`, `version`, `scores`: of the last round that merged edits of ours; `edits`: every edit of the file.
    """
    last = next((each for each in reversed(rounds) if each.outcome == "merged"), None)
    return {
        "federation": federation,
        "round": last.round if last else None,
        "version": last.version if last else None,
        "merged": sum(each.merged for each in entries),
        "scores": dict(last.scores) if last and last.scores is not None else None,
        "edits": [edit_row(each) for each in entries],
    }


def published_line(round_: int, version: int, merged: int, scores: Scores) -> str:
    """`round 1 published as version 1: 24 of 24 edits merged, 23 took; ES 0.96 PS 0.92 NS 0.90 Score 0.93`."""
    took = sum(each.succeeded for each in scores.edits)
    figures = " ".join(f"{name} {value:.2f}" for name, value in scores.row().items() if value is not None)
    line = f"round {round_} published as version {version}: {merged} of {merged} edits merged, {took} took"
    return f"{line}; {figures}" if figures else line


def missing_line(pending: int, least: int) -> str:
    """What is missing where fewer edits wait than the federation takes."""
    return f"{pending} new edit(s); the federation takes no fewer than {least} at once: {least - pending} missing"


def by_round(entries: Sequence[LedgerEntry]) -> Mapping[int, list[LedgerEntry]]:
    """Merged edits by the round that merged them."""
    grouped: dict[int, list[LedgerEntry]] = {}
    for each in entries:
        assert each.round is not None
        grouped.setdefault(each.round, []).append(each)
    return grouped
