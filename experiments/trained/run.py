"""From a data folder to a model folder: train, write what an edit needs, measure what is known. Goes on from a kill."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from collabedit.experiments.atlas.bundle import write_json
from collabedit.experiments.atlas.training import Recipe
from collabedit.experiments.baselines import threads_of_torch
from collabedit.experiments.progress import Listener
from collabedit.experiments.trained.allocation import keep_freed_memory
from collabedit.experiments.trained.folder import KNOWLEDGE, write_folder, write_knowledge
from collabedit.experiments.trained.knowledge import knowledge
from collabedit.experiments.trained.lesson import Lesson, lesson_of
from collabedit.experiments.trained.records import FACTS, FactsName
from collabedit.experiments.trained.sizes import Size
from collabedit.experiments.trained.training import new_model, train

CHECKPOINT: Final = "training.safetensors"
TOLD_EVERY: Final = 50  # steps
PLAN: Final = "plan.json"
REHEARSED: Final = 6  # steps, of which the first two are not counted


@dataclass(frozen=True)
class Learned:
    """known: share of the statements by kind of prompt."""

    folder: Path
    known: dict[str, float]


def learn(
    data: Path,
    out: Path,
    size: Size,
    listener: Listener,
    *,
    facts: FactsName = "counterfact",
    most: int | None = None,
    minutes: float | None = None,
    threads: int | None = None,
) -> Learned:
    """Trains a model of the size and writes its folder; what is complete is read.

    facts: what it is taught; most: of their records, the first [default: all]. minutes: of this machine as it is now;
    the number of steps is reckoned once and kept [default: the size's steps].
    Raises UsageError where the data folder lacks a file, or `out` holds a training with other settings or data.
    """
    if (out / KNOWLEDGE).is_file():
        return Learned(out, json.loads((out / KNOWLEDGE).read_text(encoding="utf-8")))
    keep_freed_memory()
    out.mkdir(parents=True, exist_ok=True)
    with threads_of_torch(threads or size.threads):
        listener.say("reading the facts")
        lesson = lesson_of(data, size.recipe, facts, whole=size.whole, most=most)
        recipe = size.recipe if minutes is None else _planned(out / PLAN, lesson, size.recipe, minutes)
        return _learn(data, out, replace(size, recipe=recipe), lesson, FACTS[facts].said, listener)


def _learn(data: Path, out: Path, size: Size, lesson: Lesson, said: str, listener: Listener) -> Learned:
    recipe, checkpoint = size.recipe, out / CHECKPOINT
    model = new_model(recipe, lesson.tokenizer).to(_device())
    listener.say(f"{recipe.steps} steps on {len(lesson.statements)} statements, {model.num_parameters() / 1e6:.1f} M")
    seconds = train(model, lesson, recipe, checkpoint, _telling(listener, recipe.steps))
    listener.say("measuring what is known")
    known = knowledge(model, lesson.tokenizer, lesson.statements)
    listener.say("writing the folder, and measuring C0")
    write_folder(out, model, lesson, size, data)
    write_knowledge(out, model, size, known, said, seconds)
    checkpoint.unlink()
    return Learned(out, known)


def lasting(recipe: Recipe, steps: int) -> Recipe:
    """The recipe over so many steps, its phases in proportion."""
    share = steps / recipe.steps
    warmup, begin, end = (max(1, round(each * share)) for each in (recipe.warmup, recipe.circle_from, recipe.circle_to))
    return replace(recipe, steps=steps, warmup=warmup, circle_from=begin, circle_to=max(end, begin + 1))


def _planned(file: Path, lesson: Lesson, recipe: Recipe, minutes: float) -> Recipe:
    """The recipe over as many steps as the time gives, by a rehearsal on a model that is thrown away."""
    if not file.is_file():
        marks: list[float] = []
        model = new_model(recipe, lesson.tokenizer).to(_device())
        rehearsal = replace(recipe, steps=REHEARSED, circle_from=0, circle_to=1)
        train(model, lesson, rehearsal, None, lambda _step, _loss: marks.append(time.perf_counter()))
        each = (marks[-1] - marks[1]) / (REHEARSED - 2)
        write_json(file, {"minutes": minutes, "seconds_a_step": each, "steps": max(1, round(60 * minutes / each))})
    return lasting(recipe, json.loads(file.read_text(encoding="utf-8"))["steps"])


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _telling(listener: Listener, total: int) -> Callable[[int, float], None]:
    losses: deque[float] = deque(maxlen=TOLD_EVERY)

    def on_step(done: int, loss: float) -> None:
        losses.append(loss)
        listener.tick("training", done, total)
        if done % TOLD_EVERY == 0:
            listener.say(f"step {done}: loss {sum(losses) / len(losses):.3f}, processor {time.process_time():.0f} s")

    return on_step
