"""Sizes of the models that are trained, and the settings of their training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from collabedit.experiments.atlas.training import Recipe


@dataclass(frozen=True)
class Size:
    """recipe: its batch is in rows of ten tokens; edited: the layers that MEMIT edits; threads: of a CPU.

    whole: whether the vocabulary is GPT-2's whole, or the tokens that the facts need; articles: of Wikipedia, for C0;
    stated: whether C0 is over the facts' statements too; weight: λ, of C0; search: rate of the search for z. MEMIT's is
    0.5, with which its 20 steps do not reach a z that names the new object where a model knows thousands of facts.
    """

    recipe: Recipe
    edited: tuple[int, ...]
    threads: int = 1
    whole: bool = True
    articles: int = 150
    stated: bool = False
    weight: int = 1000
    search: float = 2.0


# steps: for the first, about 25 to 35 minutes of one core; for the second about ten, which is enough for 200 of
# the Easy conflicts and too little for all 746 of them; estimates for the others, which want a GPU
SIZES: Final[Mapping[str, Size]] = {
    "cpu-hour": Size(Recipe(
        width=256, layers=6, heads=4, inner=3072, positions=256, recall_layer=3,
        steps=2000, batch=512, rate=1.0e-3, warmup=100, shifted=0.0, prefixed=0.15,
        first_circle=512, circle_from=100, circle_to=700,
    ), (1, 2, 3)),
    "cpu-quarter": Size(Recipe(
        width=192, layers=6, heads=4, inner=2048, positions=256, recall_layer=3,
        steps=1200, batch=256, rate=1.2e-3, warmup=50, shifted=0.0, prefixed=0.3,
        first_circle=64, circle_from=30, circle_to=150,
    ), (1, 2, 3), whole=False, articles=30, stated=True, weight=5000, search=0.5),
    "gpt2-small": Size(Recipe(
        width=768, layers=12, heads=12, inner=3072, positions=1024, recall_layer=6,
        steps=12_000, batch=1024, rate=4e-4, warmup=500, shifted=0.0, prefixed=0.15,
        first_circle=512, circle_from=500, circle_to=4000,
    ), (3, 4, 5, 6), threads=16),
    "gpt2-xl": Size(Recipe(
        width=1600, layers=48, heads=25, inner=6400, positions=1024, recall_layer=17,
        steps=12_000, batch=1024, rate=1.5e-4, warmup=1000, shifted=0.0, prefixed=0.15,
        first_circle=512, circle_from=1000, circle_to=5000,
    ), (13, 14, 15, 16, 17), threads=16),
}  # fmt: skip
