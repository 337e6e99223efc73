"""The search for z where memory is short."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collabedit.client import memory, targets
from collabedit.client.loading import LoadedModel
from collabedit.client.lookup import drift_row, rewriting_rows
from collabedit.client.memory import is_out_of_memory, tokens_that_fit
from collabedit.client.search import Found, Plan, Problem, pose, share
from collabedit.client.targets import find_targets
from collabedit.common.edits import Edit
from collabedit.common.errors import UsageError
from collabedit.common.hparams import HyperParameters

HUGE = 1 << 60  # bytes that no host has: the allocator's own error


@pytest.fixture
def scarce(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes losses of more than so many tokens ask the allocator for what nobody has."""

    def make(limit: int) -> None:
        loss = Problem.loss

        def demanding(problem: Problem, *args: Any) -> torch.Tensor:
            if problem.tokens > limit:
                torch.empty(HUGE, dtype=torch.uint8)
            return loss(problem, *args)

        monkeypatch.setattr(Problem, "loss", demanding)

    return make


class Counting(dict[str, Found]):
    """A store that counts how often each z was put into it."""

    def __init__(self) -> None:
        super().__init__()
        self.puts: list[str] = []

    def __setitem__(self, key: str, found: Found) -> None:
        self.puts.append(key)
        super().__setitem__(key, found)


def test_the_batch_is_halved_until_it_fits(
    tiny: LoadedModel, edits: Any, hparams: HyperParameters, templates: Any, scarce: Any
) -> None:
    """The allocator's error costs no edit its z: it is said, the batch halved, and the result is the same."""
    plenty = find_targets(tiny, edits, hparams, templates, batch=4096)
    scarce(400)
    said: list[str] = []
    progress: list[int] = []
    short = find_targets(
        tiny, edits, hparams, templates, batch=4096, say=said.append, on_progress=lambda done, _: progress.append(done)
    )
    assert torch.allclose(short.z, plenty.z, rtol=1e-4, atol=1e-5)
    assert len(said) >= 2
    assert all("out of memory" in line for line in said)
    assert progress[-1] == hparams.v_num_grad_steps * len(edits)


def test_what_was_found_before_memory_ran_out_is_not_searched_again(
    tiny: LoadedModel, edits: Any, hparams: HyperParameters, templates: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that fails when half of the edits have their z goes on with the other half."""
    loss, store = Problem.loss, Counting()
    said: list[str] = []

    def failing(problem: Problem, *args: Any) -> torch.Tensor:
        if len(store) == len(edits) // 2 and not said:
            torch.empty(HUGE, dtype=torch.uint8)
        return loss(problem, *args)

    monkeypatch.setattr(Problem, "loss", failing)
    monkeypatch.setattr(targets, "_halved", lambda batch: batch)  # one edit at a time, before and after
    find_targets(tiny, edits, hparams, templates, batch=1, store=store, say=said.append)
    assert len(said) == 1
    assert sorted(store.puts) == sorted(set(store.puts))
    assert len(store) == len(edits)


def test_one_edit_that_does_not_fit_is_said_in_one_line(
    tiny: LoadedModel, edits: tuple[Edit, ...], hparams: HyperParameters, templates: Any, scarce: Any
) -> None:
    """Where not even one edit fits, the caller is told what would help."""
    scarce(0)
    with pytest.raises(UsageError, match="out of memory") as caught:
        find_targets(tiny, edits[:2], hparams, templates)
    assert "bfloat16" in caught.value.mend


def test_other_mistakes_are_not_taken_for_a_want_of_memory(
    tiny: LoadedModel, edits: Any, hparams: HyperParameters, templates: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A RuntimeError of another kind comes through, at once."""

    def broken(*_: Any) -> torch.Tensor:
        return torch.zeros(2) @ torch.zeros(3)

    monkeypatch.setattr(Problem, "loss", broken)
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        find_targets(tiny, edits, hparams, templates)


def test_the_errors_of_torchs_allocators_are_known() -> None:
    """The host's own, raised here for real, and the class that a GPU raises."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(HUGE, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("not enough memory"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(free=st.integers(0, 1 << 40))
def test_the_batch_follows_the_free_memory(tiny: LoadedModel, hparams: HyperParameters, free: int) -> None:
    """More free memory never makes a smaller batch, and the batch stays between its bounds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "free_bytes", lambda _: free)
        less = tokens_that_fit(tiny, hparams)
        patch.setattr(memory, "free_bytes", lambda _: 2 * free + 1)
        more = tokens_that_fit(tiny, hparams)
    assert memory.FEWEST <= less <= more <= memory.MOST


def test_a_model_of_half_the_bytes_takes_half_the_memory(tiny: LoadedModel, hparams: HyperParameters) -> None:
    """The estimate for a token follows the dtype of the weights."""
    whole = memory.token_bytes(tiny, hparams)
    half = LoadedModel(tiny.model.to(torch.bfloat16), tiny.tokenizer, tiny.architecture, tiny.folder)
    assert memory.token_bytes(half, hparams) * 2 == whole


def test_a_front_is_gone_as_soon_as_nobody_holds_it(
    tiny: LoadedModel, edits: Any, hparams: HyperParameters, templates: Any
) -> None:
    """No cycle of references keeps a batch's tensors until Python's collector comes: on a GPU that is too late."""
    plans = [Plan(rewriting_rows(tiny, each, templates), drift_row(tiny, each)) for each in edits]
    problem = pose(tiny, plans, share(tiny, plans, hparams), hparams)
    problem.loss(torch.zeros(len(plans), 32), hparams)
    held = weakref.ref(problem.rewriting)
    gc.disable()
    try:
        del problem
        assert held() is None
    finally:
        gc.enable()
