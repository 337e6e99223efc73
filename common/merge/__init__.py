"""Merge methods, one file each; a new method is a file and a row here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from collabedit.common.errors import UsageError
from collabedit.common.merge.base import MergeMethod, PriorOf
from collabedit.common.merge.collabedit import COLLABEDIT, EQUALITY, NULL_SPACE, RIDGE, CollabEdit
from collabedit.common.merge.device import chosen_device, merge_on
from collabedit.common.merge.simple_average import SimpleAverage
from collabedit.common.merge.task_arithmetic import TaskArithmetic
from collabedit.common.merge.ties import Ties

MERGE_METHODS: Final[Mapping[str, MergeMethod]] = {
    each.name: each for each in (COLLABEDIT, EQUALITY, NULL_SPACE, RIDGE, SimpleAverage(), TaskArithmetic(), Ties())
}


def merge_method(name: str) -> MergeMethod:
    """The method of that name. Raises UsageError that lists those there are."""
    try:
        return MERGE_METHODS[name]
    except KeyError:
        raise UsageError(f'no merge method "{name}"', mend=f"one of: {', '.join(MERGE_METHODS)}") from None


__all__ = ["MERGE_METHODS", "CollabEdit", "MergeMethod", "PriorOf", "chosen_device", "merge_method", "merge_on"]
