"""The training of a model that knows real facts: what it is told, that a kill changes nothing, and what comes out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from collabedit.common.errors import UsageError
from collabedit.common.model_folder import find_model
from collabedit.experiments.baselines import Bench
from collabedit.experiments.trained.lesson import Lesson, lesson_of
from collabedit.experiments.trained.run import CHECKPOINT, lasting, learn
from collabedit.experiments.trained.sizes import SIZES
from collabedit.experiments.trained.training import new_model, train
from tests.experiments.made_up_facts import TINY, made_up_folder


class Quiet:
    """Hears everything and shows nothing."""

    def say(self, line: str) -> None:
        """A step begins."""

    def party(self, state: object) -> None:
        """A party's client came further."""

    def tick(self, what: str, done: int, total: int) -> None:
        """A long step came further."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out like the public data."""
    return made_up_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def lesson(data: Path) -> Lesson:
    """What the tiny model is taught."""
    return lesson_of(data, TINY.recipe)


def weights_of(lesson: Lesson, checkpoint: Path | None) -> dict[str, torch.Tensor]:
    """The weights after the tiny training."""
    model = new_model(TINY.recipe, lesson.tokenizer)
    train(model, lesson, TINY.recipe, checkpoint, lambda _step, _loss: None)
    return dict(model.state_dict())


def test_a_training_killed_after_a_checkpoint_comes_to_the_same_weights(data: Path, tmp_path: Path) -> None:
    """SIGKILL right after a checkpoint's step, and the same training run again: bit for bit the weights of one run."""
    lesson = lesson_of(data, TINY.recipe)
    program = f"""
import os, signal
from pathlib import Path
from collabedit.experiments.trained import training
from collabedit.experiments.trained.lesson import lesson_of
from tests.experiments.made_up_facts import TINY
training.KEEP_EVERY = 3
lesson = lesson_of(Path({str(data)!r}), TINY.recipe)
def on_step(done, loss):
    if done == 4:
        os.kill(os.getpid(), signal.SIGKILL)
model = training.new_model(TINY.recipe, lesson.tokenizer)
training.train(model, lesson, TINY.recipe, Path({str(tmp_path / "kept")!r}), on_step)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    resumed, whole = weights_of(lesson, tmp_path / "kept"), weights_of(lesson, None)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_a_checkpoint_of_other_settings_is_refused(lesson: Lesson, tmp_path: Path) -> None:
    """A folder that holds a training with another rate is no place to go on in."""
    weights_of(lesson, tmp_path / "kept")
    model = new_model(TINY.recipe, lesson.tokenizer)
    with pytest.raises(UsageError, match="other settings"):
        train(model, lesson, replace(TINY.recipe, rate=1e-3), tmp_path / "kept", lambda _step, _loss: None)


def test_the_folder_has_all_that_an_edit_needs(data: Path, tmp_path: Path) -> None:
    """What comes out opens as the bench of an experiment, and a second call only reads what is known."""
    out = tmp_path / "model"
    found = learn(data, out, TINY, Quiet())
    assert Bench.of(find_model(str(out))).weights == tuple(f"transformer.h.{i}.mlp.c_proj.weight" for i in (1, 2))
    assert set(found.known) == {"edit", "paraphrase", "rephrased", "neighbor", "unrelated"}
    assert (out / "knowledge.png").stat().st_size > 0
    assert not (out / CHECKPOINT).exists()
    assert learn(data, out, TINY, Quiet()) == found


def test_batches_are_a_function_of_the_step(lesson: Lesson) -> None:
    """The same step gives the same batch, another step another one."""
    first, again, other = (
        lesson.reader.batch(step, 8, lesson.reader.owners, prefixed=0.5, interchange=True) for step in (1, 1, 2)
    )
    assert torch.equal(first.tokens, again.tokens)
    assert torch.equal(first.labels, again.labels)
    assert first.tokens.shape != other.tokens.shape or not torch.equal(first.tokens, other.tokens)


def test_the_place_of_a_subject_is_its_last_token(lesson: Lesson) -> None:
    """With and without a space before the prompt, the tokens up to the place end with the subject."""
    for statement, row in zip(lesson.statements, lesson.rows, strict=True):
        if statement.subject is not None:
            for ids, place in zip(row.prompts, row.subject_last, strict=True):
                told = lesson.tokenizer.decode(ids[: place + 1])
                assert told.endswith(statement.prompt[slice(*statement.subject)])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """An empty data folder is a user's mistake, told in one line."""
    with pytest.raises(UsageError, match=r"counterfact\.jsonl"):
        lesson_of(tmp_path, TINY.recipe)


def test_a_recipe_over_other_steps_keeps_its_proportions() -> None:
    """Half the steps have half the warm-up and widen the circle twice as fast."""
    recipe = SIZES["cpu-hour"].recipe
    half = lasting(recipe, recipe.steps // 2)
    assert (half.warmup, half.circle_to) == (recipe.warmup // 2, recipe.circle_to // 2)
