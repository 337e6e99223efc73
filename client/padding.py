"""Public facts that fill a batch up which is smaller than a federation takes.

A fact that the model answers rightly already has almost no residual, so it adds to the rank of KKᵀ (figure 5 of the
paper: what a small batch gives away) and changes next to nothing. Such facts are no edits of ours: no ledger has them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from collabedit.client.contradictions import about
from collabedit.client.edit_file import demand_clean
from collabedit.client.known_facts import read_facts
from collabedit.common.blinding import canonical
from collabedit.common.edits import Edit

AnswersRightly = Callable[[Sequence[Edit]], Sequence[bool]]


def read_padding(file: Path | None, *, skip_invalid: bool = False) -> tuple[Edit, ...]:
    """The facts of a file, whose `target_new` is the object that is true; none for no file.

    Raises BadEditsError that names every bad line, unless these are to be skipped.
    """
    if file is None:
        return ()
    parsed = read_facts(file)
    if not skip_invalid:
        demand_clean(file, parsed)
    return parsed.edits


def pads(
    facts: Sequence[Edit],
    batch: Sequence[Edit],
    least: int,
    answers_rightly: AnswersRightly,
    *,
    ours: Sequence[Edit] = (),
) -> list[Edit]:
    """The first of `facts` that bring `batch` to `least` edits; all that there are where they do not suffice.

    answers_rightly: for each of some facts, whether the model gives the right object now; asked of no more facts than
    needed. A fact is left out where its subject is that of an edit in `batch` or in another pad, whose keys it would
    repeat, or where one of `ours` is about the same subject and relation. The same arguments give the same pads.
    """
    missing, chosen = least - len(batch), list[Edit]()
    candidates = _apart(facts, batch, ours) if missing > 0 else []
    for start in range(0, len(candidates), max(1, missing)):
        if len(chosen) >= missing:
            break
        some = candidates[start : start + missing]
        chosen += [fact for fact, right in zip(some, answers_rightly(some), strict=True) if right]
    return chosen[: max(0, missing)]


def _apart(facts: Sequence[Edit], batch: Sequence[Edit], ours: Sequence[Edit]) -> list[Edit]:
    """The facts whose keys are new, in their order; the first one of each subject."""
    subjects = {canonical(each.subject) for each in batch}
    slots = {about(each) for each in ours}
    found: dict[str, Edit] = {}
    for fact in facts:
        subject = canonical(fact.subject)
        if subject not in subjects and about(fact) not in slots:
            found.setdefault(subject, fact)
    return list(found.values())
