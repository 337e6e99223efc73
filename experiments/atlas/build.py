"""`python -m collabedit.experiments.atlas.build`: everything in the bundle, from nothing, seeded.

The world is generated, the tokenizer and the model are trained on it, C0 is measured, and the edit files are dealt.
With `--keep-model` the folder's model stays, and only what is made from it is made again.
"""

import argparse
import random
import shutil
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel, PreTrainedTokenizerFast

from collabedit.experiments.atlas.batches import Reader
from collabedit.experiments.atlas.bundle import TEXT_SEED, save_model, write_edits, write_facts, write_preset
from collabedit.experiments.atlas.card import write_card
from collabedit.experiments.atlas.knowledge import measure
from collabedit.experiments.atlas.products import bfloat16_products
from collabedit.experiments.atlas.text import documents, filler, statements
from collabedit.experiments.atlas.tokenizer import train_tokenizer
from collabedit.experiments.atlas.training import Recipe, new_model, train
from collabedit.experiments.atlas.world import World, build_world

log = structlog.get_logger(__name__)

VOCABULARY: Final = 1280
EDITED_LAYERS: Final = (0, 1, 2)
PROBED: Final = 2000  # statements that the progress is measured on


@dataclass
class Progress:
    """Measures and logs now and then what is known."""

    model: GPT2LMHeadModel
    tokenizer: PreTrainedTokenizerFast
    world: World
    every: int
    begun: float

    def __post_init__(self) -> None:
        rng = random.Random(0)  # noqa: S311 - no secret
        self._rows = rng.sample(list(statements(self.world)), PROBED)
        self._lead = f"{filler(self.world, rng)}. "

    def __call__(self, step: int) -> None:
        """After each step of the training."""
        if (step + 1) % self.every:
            return
        self.model.eval()
        bare = measure(self.model, self.tokenizer, self._rows)
        led = measure(self.model, self.tokenizer, self._rows, self._lead)
        self.model.train()
        minutes = round((time.perf_counter() - self.begun) / 60, 1)
        log.info("known", step=step + 1, minutes=minutes, worst=bare.worst, mean=bare.mean, after_text=led.mean)


def train_atlas(world: World, recipe: Recipe, bfloat16: bool) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]:
    """The tokenizer and the model, trained on the world from nothing."""
    tokenizer = train_tokenizer(documents(world, TEXT_SEED), VOCABULARY, recipe.positions)
    model = new_model(recipe, tokenizer)
    reader = Reader(world, tokenizer, recipe.seed)
    progress = Progress(model, tokenizer, world, every=250, begun=time.perf_counter())
    with bfloat16_products(model) if bfloat16 else nullcontext():
        train(model, reader, recipe, progress)
    return model, tokenizer


def build(out: Path, recipe: Recipe, *, keep_model: bool = False, bfloat16: bool = False) -> None:
    """Makes the bundle beside `out`, and puts it there when it is complete."""
    world = build_world(seed=recipe.seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".atlas-") as scratch:
        folder = Path(scratch) / "atlas"
        if keep_model:
            shutil.copytree(out, folder)
        else:
            model, tokenizer = train_atlas(world, recipe, bfloat16)
            save_model(folder, model, tokenizer, EDITED_LAYERS)
        write_preset(folder, world, EDITED_LAYERS)
        write_edits(folder, world)
        write_facts(folder / "facts.jsonl", world)
        known = measure(*reloaded(folder), list(statements(world)))
        write_card(folder / "README.md", world, recipe, known)
        log.info("built", worst=known.worst, mean=known.mean, bytes=size_of(folder))
        if out.exists():
            shutil.rmtree(out)
        shutil.move(folder, out)


def reloaded(folder: Path) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]:
    """The model and the tokenizer as a user gets them from the folder."""
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    return model.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> None:
    """Command line: where the bundle goes, and whether its model is kept."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("common/models/atlas"), help="folder of the bundle")
    parser.add_argument("--keep-model", action="store_true", help="make only what is made from the model")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="steps of the training")
    parser.add_argument("--bfloat16", action="store_true", help="multiply in bfloat16: for CPUs that are fast at it")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    build(arguments.out, Recipe(steps=arguments.steps), keep_model=arguments.keep_model, bfloat16=arguments.bfloat16)


if __name__ == "__main__":
    main()
