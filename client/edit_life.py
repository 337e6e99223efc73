"""The life of one edit: the states that it can be in, which lead to which, and what a verdict makes of it. Pure.

`NEXT` is the whole of it: a change of state that is not in the table is a mistake of ours, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from collabedit.common.edits import Edit


class EditStatus(Enum):
    """What became of one edit."""

    PENDING = "pending"  # waits for a round
    KNOWN = "already-known"  # the shared weights say so without it: skipped, as long as they do
    ENTERED = "entered"  # part of the round under way
    MERGED = "merged"  # in the published weights of `version`, and not scored on them yet
    VERIFIED = "verified"  # merged, and holds
    FAILED = "failed"  # merged, and did not take
    FORGOTTEN = "forgotten"  # held once, and does no longer
    RESUBMITTED = "re-submitted"  # was merged or in conflict, and waits for a round again
    IN_CONFLICT = "in-conflict"  # another party's edit of the same fact stands against it
    WITHDRAWN = "withdrawn"  # its line went, another party's edit is kept, or a later line of ours took its place


SAID_ELSEWHERE: Final = "another party's edit says the same and writes it"
OVERWRITTEN: Final = "another party's edit of the same fact overwrote it"
WAITING: Final = frozenset({EditStatus.PENDING, EditStatus.RESUBMITTED})
IN_WEIGHTS: Final = frozenset({EditStatus.MERGED, EditStatus.VERIFIED, EditStatus.FAILED, EditStatus.FORGOTTEN})

_CONTESTED: Final = frozenset({EditStatus.IN_CONFLICT, EditStatus.WITHDRAWN})
NEXT: Final[Mapping[EditStatus, frozenset[EditStatus]]] = {
    EditStatus.PENDING: _CONTESTED | {EditStatus.ENTERED, EditStatus.KNOWN},
    EditStatus.KNOWN: frozenset({EditStatus.PENDING, EditStatus.WITHDRAWN}),
    EditStatus.ENTERED: _CONTESTED | WAITING | {EditStatus.MERGED},
    EditStatus.MERGED: _CONTESTED | {EditStatus.VERIFIED, EditStatus.FAILED},
    EditStatus.VERIFIED: _CONTESTED | {EditStatus.FORGOTTEN},
    EditStatus.FAILED: _CONTESTED | WAITING,
    EditStatus.FORGOTTEN: _CONTESTED | {EditStatus.VERIFIED, EditStatus.RESUBMITTED},
    EditStatus.RESUBMITTED: _CONTESTED | {EditStatus.PENDING, EditStatus.ENTERED, EditStatus.KNOWN},
    EditStatus.IN_CONFLICT: WAITING | {EditStatus.WITHDRAWN, EditStatus.VERIFIED},
    EditStatus.WITHDRAWN: WAITING | {EditStatus.WITHDRAWN},  # for another cause
}


class Cause(Enum):
    """Why an edit was withdrawn, which decides what brings it back."""

    FILE = "file"  # its line went; comes back with the line
    VERDICT = "verdict"  # another party's edit is kept; comes back by another decision alone
    LATER = "later"  # a later line of ours, of the same fact, was merged; comes back once that line goes


class VerdictKind(Enum):
    """What was decided about an edit (the protocol's VerdictKind)."""

    KEEP = 1
    YIELD = 2
    DUPLICATE = 3
    UNDECIDED = 4
    OVERWRITTEN = 5


@dataclass(frozen=True)
class VerdictNote:
    """A verdict about one edit of ours. number: the federation's, growing; round: the one it was given in."""

    number: int
    round: int
    key: str
    kind: VerdictKind
    policy: str = ""

    @property
    def reason(self) -> str:
        """What the edit's owner is told. Who the other party is nobody is told."""
        said = {
            VerdictKind.KEEP: "other parties contradict it, and it is kept",
            VerdictKind.YIELD: "another party's edit of the same fact is kept",
            VerdictKind.DUPLICATE: SAID_ELSEWHERE,
            VerdictKind.UNDECIDED: "another party's edit contradicts it; an admin of the federation decides",
            VerdictKind.OVERWRITTEN: OVERWRITTEN,
        }[self.kind]
        chosen = self.kind not in (VerdictKind.UNDECIDED, VerdictKind.OVERWRITTEN)
        policy = f" (policy {self.policy})" if self.policy and chosen else ""
        return f"round {self.round}: {said}{policy}"


def after_verdict(kind: VerdictKind, status: EditStatus, cause: Cause | None) -> EditStatus | None:
    """The state that a verdict leads to; None where the edit stays what it is.

    cause: why it was withdrawn, where it was. What its owner has withdrawn no verdict brings back.
    """
    if status is EditStatus.KNOWN or (status is EditStatus.WITHDRAWN and cause is not Cause.VERDICT):
        return None
    wanted, of = _VERDICTS[kind]
    return wanted if status in of else None


_VERDICTS: Final[Mapping[VerdictKind, tuple[EditStatus, frozenset[EditStatus]]]] = {
    VerdictKind.KEEP: (
        EditStatus.RESUBMITTED,
        frozenset({EditStatus.FAILED, EditStatus.IN_CONFLICT, EditStatus.WITHDRAWN}),
    ),
    VerdictKind.YIELD: (
        EditStatus.WITHDRAWN,
        IN_WEIGHTS | WAITING | {EditStatus.ENTERED, EditStatus.IN_CONFLICT},
    ),
    VerdictKind.DUPLICATE: (
        EditStatus.PENDING,
        frozenset(
            {
                EditStatus.ENTERED,
                EditStatus.FAILED,
                EditStatus.IN_CONFLICT,
                EditStatus.RESUBMITTED,
                EditStatus.WITHDRAWN,
            }
        ),
    ),
    VerdictKind.UNDECIDED: (EditStatus.IN_CONFLICT, IN_WEIGHTS | WAITING | {EditStatus.ENTERED}),
    VerdictKind.OVERWRITTEN: (EditStatus.IN_CONFLICT, IN_WEIGHTS | {EditStatus.RESUBMITTED}),
}


@dataclass(frozen=True)
class LedgerEntry:
    """One edit and what became of it.

    reason: why it is what it is. scores: on the weights that it was last scored on. augmented: re-submitted with its
    paraphrases and related objects. measured: what screening found. present: whether the file holds its line.
    """

    edit: Edit
    line: int
    status: EditStatus
    round: int | None = None
    version: int | None = None
    reason: str = ""
    scores: Mapping[str, Any] | None = None
    augmented: bool = False
    measured: Mapping[str, Any] | None = None
    present: bool = True

    @property
    def key(self) -> str:
        """What the edit says, as a digest."""
        return self.edit.key

    @property
    def written_elsewhere(self) -> bool:
        """Whether it waits because another party is to write the same."""
        return self.status in WAITING and SAID_ELSEWHERE in self.reason

    @property
    def merged(self) -> bool:
        """Whether a published version was made with it, and nothing has taken its place since."""
        return self.status in IN_WEIGHTS


@dataclass(frozen=True)
class LifeRow:
    """One event in an edit's life, and what it was from then on. at_ms: Unix time in milliseconds."""

    at_ms: int
    status: EditStatus
    round: int | None = None
    version: int | None = None
    reason: str = ""
