"""C0's measurement: every token once, every layer in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from engine_reference import SENTENCES

from collabedit.client import covariance
from collabedit.client.covariance import Limit, Measured, measure_covariance
from collabedit.client.loading import LoadedModel
from collabedit.client.lookup import Row
from collabedit.client.passes import Padded, pad
from collabedit.client.templates import sample_context_templates
from collabedit.common.errors import BadModelError, MismatchError, UsageError

LAYERS = (1, 2, 3)


def by_hand(loaded: LoadedModel, texts: tuple[str, ...], layer: int) -> tuple[int, torch.Tensor]:
    """Σ kkᵀ of one layer by one unpadded pass a text."""
    total, count, seen = torch.zeros(128, 128, dtype=torch.float64), 0, []
    module = loaded.model.transformer.h[layer].mlp.c_proj
    handle = module.register_forward_pre_hook(lambda _, args: seen.append(args[0][0].double()))
    for text in texts:
        loaded.model(input_ids=torch.tensor([loaded.tokenizer(text)["input_ids"]]))
        rows = seen.pop()
        total, count = total + rows.T @ rows, count + len(rows)
    handle.remove()
    return count, total


def test_one_pass_for_all_layers_is_one_pass_for_each(tiny64: LoadedModel) -> None:
    """The moments of all layers in one pass are those of a pass a layer, text by text without padding."""
    found = measure_covariance(tiny64, SENTENCES, LAYERS, batch=90).moments
    for layer in LAYERS:
        name = f"transformer.h.{layer}.mlp.c_proj.weight"
        count, total = by_hand(tiny64, SENTENCES, layer)
        alone = measure_covariance(tiny64, SENTENCES, (layer,)).moments[name]
        assert found[name].count == alone.count == count
        assert torch.allclose(found[name].total, total, rtol=1e-10, atol=1e-12)
        assert torch.allclose(found[name].total, alone.total, rtol=1e-10, atol=1e-12)
        assert torch.allclose(found[name].mean(), total / count)


def test_float32_is_accumulated_in_float64(tiny: LoadedModel, tiny64: LoadedModel) -> None:
    """A float32 model's moment differs from a float64 model's by the vectors' rounding alone."""
    single = measure_covariance(tiny, SENTENCES * 5, LAYERS).moments
    double = measure_covariance(tiny64, SENTENCES * 5, LAYERS).moments
    for name, moment in single.items():
        assert moment.total.dtype == torch.float64
        assert float((moment.total - double[name].total).norm() / double[name].total.norm()) < 1e-5


@pytest.mark.parametrize(("most", "length"), [(50, None), (7, 3), (None, 10)])
def test_long_texts_are_cut_and_the_number_of_tokens_kept_to(
    tiny: LoadedModel, most: int | None, length: int | None
) -> None:
    """No more vectors than the limit says are counted, and no text is lost for being long."""
    texts = [" ".join(SENTENCES) * 3]
    whole = len(tiny.tokenizer(texts[0])["input_ids"])
    seen: list[int] = []
    found = measure_covariance(
        tiny, texts, LAYERS, limit=Limit(tokens=most), length=length, batch=30,
        on_pass=lambda measured: seen.append(measured.tokens),
    ).moments  # fmt: skip
    assert whole > tiny.longest
    assert {moment.count for moment in found.values()} == {whole if most is None else most}
    assert seen == sorted(seen)
    assert seen[-1] == (most or whole)


@pytest.mark.parametrize("documents", [1, 3, 99])
def test_it_stops_after_so_many_documents(tiny: LoadedModel, documents: int) -> None:
    """Whole documents are counted, and no more are read than are asked for."""
    read: list[str] = []

    def texts() -> Iterator[str]:
        for text in SENTENCES:
            read.append(text)
            yield text

    measured = measure_covariance(tiny, texts(), LAYERS, limit=Limit(documents=documents), batch=30)
    wanted = SENTENCES[:documents]
    assert tuple(read) == wanted
    assert (measured.start.documents, measured.start.pieces) == (len(wanted), 0)
    assert measured.tokens == sum(len(tiny.tokenizer(text)["input_ids"]) for text in wanted)


class StoppedError(Exception):
    """Ends a measurement as a kill would."""


TEXTS = (" ".join(SENTENCES) * 2, *SENTENCES, " ".join(SENTENCES))
CUT: dict[str, Any] = {"length": 7, "batch": 20}
WHOLE = Limit()


def broken_off(loaded: LoadedModel, passes: int, limit: Limit = WHOLE) -> Measured:
    """Where a measurement of TEXTS stood after so many passes."""
    seen: list[Measured] = []

    def stop(measured: Measured) -> None:
        seen.append(measured)
        if len(seen) == passes:
            raise StoppedError

    with pytest.raises(StoppedError):
        measure_covariance(loaded, TEXTS, LAYERS, limit=limit, on_pass=stop, **CUT)
    return seen[-1]


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of three passes, so that a few sentences fill several."""
    monkeypatch.setattr(covariance, "WINDOW", 3)


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("passes", [1, 3, 4, 9])
def test_a_measurement_goes_on_to_the_same_bits(tiny: LoadedModel, passes: int) -> None:
    """Broken off within a window, at its end or behind it, in the middle of a document: the same sums to the bit."""
    whole = measure_covariance(tiny, TEXTS, LAYERS, **CUT)
    there = broken_off(tiny, passes)
    assert 0 < there.tokens < whole.tokens
    resumed = measure_covariance(tiny, TEXTS[there.start.documents :], LAYERS, so_far=there, **CUT)
    assert resumed.start == whole.start
    assert resumed.tokens == whole.tokens == whole.start.tokens
    assert whole.start.documents == len(TEXTS)
    for name, moment in whole.moments.items():
        assert resumed.moments[name].count == moment.count == whole.tokens
        assert torch.equal(resumed.moments[name].total, moment.total)


@pytest.mark.usefixtures("small_windows")
def test_another_stopping_rule_is_followed_or_refused(tiny: LoadedModel) -> None:
    """A run goes on to a later end, to the bits of an undisturbed one, but for an end within the window under way."""
    later = measure_covariance(tiny, TEXTS, LAYERS, limit=Limit(tokens=150), **CUT)
    there = broken_off(tiny, 2, Limit(tokens=120))
    resumed = measure_covariance(tiny, TEXTS, LAYERS, limit=Limit(tokens=150), so_far=there, **CUT)
    for name, moment in later.moments.items():
        assert torch.equal(resumed.moments[name].total, moment.total)
    for first, then in ((Limit(tokens=50), WHOLE), (WHOLE, Limit(tokens=50)), (WHOLE, Limit(documents=0))):
        there = broken_off(tiny, 2, first)
        with pytest.raises(MismatchError, match="stopping rule"):
            measure_covariance(tiny, TEXTS, LAYERS, limit=then, so_far=there, **CUT)


def test_pieces_of_like_length_share_a_pass(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long and short documents by turns: little of a pass is padding, none is above the batch, and nothing is lost."""
    texts = [text for _ in range(20) for text in ("river", " ".join(SENTENCES[:3]))]
    shapes: list[tuple[int, int]] = []

    def noted(rows: Sequence[Row], device: torch.device) -> Padded:
        padded = pad(rows, device)
        shapes.append((padded.mask.numel(), int(padded.mask.sum())))
        return padded

    monkeypatch.setattr(covariance, "pad", noted)
    measured = measure_covariance(tiny, texts, LAYERS, batch=100)
    assert sum(tokens for _, tokens in shapes) == measured.tokens
    assert max(columns for columns, _ in shapes) <= 100
    assert measured.tokens > 0.9 * sum(columns for columns, _ in shapes)


def test_inputs_that_are_not_finite_are_refused(tiny: LoadedModel) -> None:
    """One overflow would spoil all of C0: the layer is named, and what helps."""
    tiny.module("transformer.h.2.mlp.c_fc").bias[5] = float("inf")
    with pytest.raises(BadModelError, match=r"h\.2\.mlp\.c_proj") as caught:
        measure_covariance(tiny, SENTENCES, (1, 2))
    assert "bfloat16" in caught.value.mend


def test_where_memory_ends_the_flag_is_named(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a pass cannot be taken back, so the run ends; a smaller pass is the user's to choose."""

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(covariance, "run_base", full)
    with pytest.raises(UsageError) as caught:
        measure_covariance(tiny, SENTENCES, LAYERS)
    assert "--batch-tokens" in caught.value.mend


def test_what_a_tokenizer_puts_behind_a_text_is_no_text(tiny: LoadedModel) -> None:
    """An end-of-text token that the tokenizer appends is not counted; one in front is, as edits' rows have it."""
    from tokenizers.processors import TemplateProcessing

    plain = measure_covariance(tiny, SENTENCES, LAYERS).tokens
    tiny.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    assert measure_covariance(tiny, SENTENCES, LAYERS).tokens == plain + len(SENTENCES)


def test_templates_are_the_same_for_a_seed_and_fit_any_prompt(tiny: LoadedModel) -> None:
    """The bare prompt, then five texts that begin as MEMIT's do, with one blank each and no other brace."""
    first, again = sample_context_templates(tiny, 3), sample_context_templates(tiny, 3)
    assert first == again
    assert sample_context_templates(tiny, 4) != first
    assert first[0] == ("{}",)
    assert [text[:2] for text in first[1]] == ["Th", "Th", "Be", "I", "Yo"] or len(first[1]) == 5
    for text, beginning in zip(first[1], ("The", "Therefore", "Because", "I", "You"), strict=True):
        assert text.startswith(beginning)
        assert text.endswith(". {}")
        assert text.count("{") == text.count("}") == 1
