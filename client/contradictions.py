"""Edits of one client that contradict each other: the same subject and relation, another object. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import replace

from collabedit.common.blinding import canonical, relation_of
from collabedit.common.edits import Edit, Parsed, Problem


def about(edit: Edit) -> tuple[str, str]:
    """What an edit is about: equal exactly for edits of the same subject and relation."""
    return canonical(edit.subject), relation_of(edit)


def contradicts(one: Edit, other: Edit) -> bool:
    """Whether two edits give the same subject and relation different objects."""
    return about(one) == about(other) and canonical(one.target_new) != canonical(other.target_new)


def without_contradictions(parsed: Parsed, done: Container[str] = ()) -> Parsed:
    """The same with each line among the problems that contradicts one before it.

    done: keys of edits that have been merged, or come to another end. A later line may contradict those: it takes their
    place.
    """
    first: dict[tuple[str, str], tuple[Edit, int]] = {}
    good: list[int] = []
    problems: list[Problem] = []
    for index, (edit, line) in enumerate(zip(parsed.edits, parsed.lines, strict=True)):
        earlier, number = (edit, line) if edit.key in done else first.setdefault(about(edit), (edit, line))
        if contradicts(edit, earlier):
            problems.append(_problem(edit, line, earlier, f"{parsed.unit} {number}"))
        else:
            good.append(index)
    return replace(
        parsed,
        edits=tuple(parsed.edits[index] for index in good),
        lines=tuple(parsed.lines[index] for index in good),
        problems=tuple(sorted((*parsed.problems, *problems), key=lambda each: each.line)),
    )


def overtaken(edits: Iterable[tuple[int, Edit]]) -> dict[str, int]:
    """The edits, each with its line's number, that one on a later line contradicts: that line, by their keys."""
    ordered = sorted(edits, key=lambda each: each[0])
    last = {about(edit): (line, edit) for line, edit in ordered}
    return {edit.key: last[about(edit)][0] for _, edit in ordered if contradicts(edit, last[about(edit)][1])}


def _problem(edit: Edit, line: int, earlier: Edit, where: str) -> Problem:
    said = f'"{edit.target_new}" contradicts {where}, where the same subject and relation have "{earlier.target_new}"'
    return Problem(line, said, "keep one of the two")
