"""Pairs of edits that contradict each other, dealt to parties, and who keeps which: the server's own judgement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from collabedit.common.blinding import KEY_BYTES, FederationKey
from collabedit.common.edits import Edit
from collabedit.common.errors import UsageError
from collabedit.experiments.data import Dealt, Pair, Place, Ranges, deal
from collabedit.experiments.data.load import drawn_rivals
from collabedit.experiments.studies import records
from collabedit.experiments.studies.settings import StudySettings
from collabedit.server.claims import Kind, Party, Rule, judge


@dataclass(frozen=True)
class Duel:
    """A conflict as it is settled: the party that keeps its edit, the edit, the one that yields, and a third object."""

    party: int
    target: Edit
    conflict: Edit
    other: str


def contested(settings: StudySettings) -> Dealt:
    """Parties whose edits all are in conflicts of two, by the settings.

    Of easy-conflict these are the data set's own; of all other records a rival is drawn from the relation's objects.
    """
    count, each = settings.parties, settings.edits_per_party
    if settings.records == "easy-conflict":
        return _easy(settings, count * each // 2)
    pool = [edit for own in records.dealt(settings, count, each) for edit in own]
    return deal(pool, count, each, conflict=1.0, seed=settings.seed)


def settled(dealt: Dealt) -> tuple[Duel, ...]:
    """Each conflict as the server settles it where the first come are served first; parties come in their order.

    Of a target without related objects the true one counts as related, as it does in the Easy data.
    """
    key = FederationKey(1, bytes(KEY_BYTES))
    claims = [[key.claim(edit) for edit in own] for own in dealt.parties]
    verdicts = judge([Party(str(party), tuple(own)) for party, own in enumerate(claims)], Rule())
    kept = {(int(each.client), each.claim) for each in verdicts if each.kind is Kind.KEEP}
    ranges = Ranges.of(edit for own in dealt.parties for edit in own)
    duels = []
    for pair in dealt.conflicts:
        wins = (pair.first.party, claims[pair.first.party][pair.first.index]) in kept
        winner, loser = (pair.first, pair.second) if wins else (pair.second, pair.first)
        target, conflict = dealt.at(winner), dealt.at(loser)
        others = [each for each in ranges.others(target) if each != conflict.target_new]
        duels.append(
            Duel(winner.party, _with_labels(target), conflict, others[0] if others else target.target_true or "")
        )
    return tuple(duels)


def _with_labels(edit: Edit) -> Edit:
    if edit.related_targets or not edit.target_true:
        return edit
    return edit.model_copy(update={"related_targets": (edit.target_true,)})


def _easy(settings: StudySettings, wanted: int) -> Dealt:
    """So many of the data set's conflicts, drawn by the seed; both sides dealt to neighbouring parties in turn."""
    pairs = drawn_rivals(records.data_folder(settings), settings.seed)
    if wanted > len(pairs):
        raise UsageError(f"easy-conflict has {len(pairs)} conflicts, not {wanted}", mend="give fewer edits, or parties")
    hands: list[list[Edit]] = [[] for _ in range(settings.parties)]
    conflicts = []
    for number, (mine, theirs) in enumerate(pairs[:wanted]):
        places = [_give(hands, (number + step) % settings.parties, edit) for step, edit in enumerate((mine, theirs))]
        conflicts.append(Pair(*places))
    return Dealt(tuple(tuple(own) for own in hands), conflicts=tuple(conflicts))


def _give(hands: Sequence[list[Edit]], party: int, edit: Edit) -> Place:
    hands[party].append(edit)
    return Place(party, len(hands[party]) - 1)
