"""What the client says about its edits when a round is over: one object for programs, one line for people."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collabedit.client.edit_life import EditStatus, LedgerEntry
from collabedit.client.screening import answered
from collabedit.client.snapshot import Snapshot
from collabedit.client.state import RoundEntry
from collabedit.common.edits import Edit
from collabedit.common.files import write_durably

if TYPE_CHECKING:
    from collabedit.client.metrics import EditScore, Scores


def verdict(score: EditScore, *, answering: bool = False) -> dict[str, Any]:
    """One edit on the new weights: whether it took, and its figures (fractions of 1; None: nothing to measure by).

    answering: it took only if the model answers with it. To be likelier than the true object does not tell an edit that
    holds from one that another party's, about the same fact, has spoilt.
    """
    return {
        "took": answered(score) if answering else score.succeeded,
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
        "target_new": entry.edit.target_new,
        "present": entry.present,
        "status": entry.status.value,
        "round": entry.round,
        "version": entry.version,
        "reason": entry.reason,
        "augmented": entry.augmented,
        "scores": dict(entry.scores) if entry.scores is not None else None,
        "measured": dict(entry.measured) if entry.measured is not None else None,
    }


def counts(entries: Sequence[LedgerEntry]) -> dict[str, int]:
    """How many edits are in each state, by the state's name; all states are named."""
    found = Counter(each.status for each in entries)
    return {each.value: found[each] for each in EditStatus}


def result(
    federation: str,
    entries: Sequence[LedgerEntry],
    rounds: Sequence[RoundEntry],
    *,
    padding: Sequence[Edit] = (),
) -> dict[str, Any]:
    """The object that `--once --json` prints and `--report` writes.

    `round`, `version`, `scores`: of the last round that merged edits of ours; `edits`: every edit of the file;
    `counts`: how many of them are in each state. padding: the public facts that filled the last batch up.
    """
    last = next((each for each in reversed(rounds) if each.outcome == "merged"), None)
    return {
        "federation": federation,
        "round": last.round if last else None,
        "version": last.version if last else None,
        "merged": sum(each.merged for each in entries),
        "counts": counts(entries),
        "scores": dict(last.scores) if last and last.scores is not None else None,
        "edits": [edit_row(each) for each in entries],
        "padding": [{"id": each.id, "subject": each.subject, "target_new": each.target_new} for each in padding],
    }


def write_report(file: Path | None, told: Mapping[str, Any]) -> None:
    """Writes a result to the report's file, where one is wanted. Raises OSError where that cannot be."""
    if file is not None:
        write_durably(file, json.dumps(told, ensure_ascii=False, indent=1).encode() + b"\n")


def published_line(round_: int, version: int, took: int, scores: Scores) -> str:
    """`round 1 published as version 1: 24 of 24 edits merged, 23 took; ES 0.96 PS 0.92 NS 0.90 Score 0.93`."""
    merged = len(scores.edits)
    figures = " ".join(f"{name} {value:.2f}" for name, value in scores.row().items() if value is not None)
    line = f"round {round_} published as version {version}: {merged} of {merged} edits merged, {took} took"
    return f"{line}; {figures}" if figures else line


def waiting_line(now: Snapshot) -> str:
    """Whom a client waits for in a round; "" where it is all that there is."""
    if now.members < now.quorum:
        there = f"{now.members} of at least {now.quorum} members are in"
        return f"round {now.round}: {there}; waiting for the others to come"
    return f"round {now.round}: {now.contributed} of {now.members} members are done" if now.members > 1 else ""


def missing_line(pending: int, missing: int, least: int) -> str:
    """What is missing where fewer edits wait than the federation takes; some count for more than one."""
    more = "" if pending + missing == least else f", {least - missing} with paraphrases and public facts"
    return f"{pending} edit(s) wait{more}; the federation takes no fewer than {least} at once: {missing} missing"


def left_line(count: int) -> str:
    """What is said of edits that wait and are too few for a round, where other parties write each of them."""
    return f"{count} edit(s) are left to other parties, which say the same"


def by_round(entries: Sequence[LedgerEntry]) -> Mapping[int, list[LedgerEntry]]:
    """Merged edits by the round that merged them."""
    grouped: dict[int, list[LedgerEntry]] = {}
    for each in entries:
        assert each.round is not None
        grouped.setdefault(each.round, []).append(each)
    return grouped
