"""The exact merge (eq. 4, 17): what one party that holds every edit would have computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from collabedit.common.contribution import ContributionLike
from collabedit.common.editors.base import Editor
from collabedit.common.editors.memit import MEMIT
from collabedit.common.merge.base import PriorOf, merged_shape


@dataclass(frozen=True)
class CollabEdit:
    """Non-destructive: equal to the global edit, to rounding."""

    name: str = "collabedit"

    def merge(
        self,
        weights: Sequence[str],
        prior: PriorOf,
        contributions: Sequence[ContributionLike],
        editor: Editor = MEMIT,
    ) -> Iterator[tuple[str, Tensor]]:
        """As `MergeMethod.merge`."""
        for weight in weights:
            merged_shape(weight, contributions)
            yield weight, editor.solve(prior(weight), (each.layer(weight) for each in contributions), what=weight)
