"""C0's measurement: every token once, every layer in one pass."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from engine_reference import SENTENCES

from collabedit.client.covariance import Limit, Measured, measure_covariance
from collabedit.client.loading import LoadedModel
from collabedit.client.templates import sample_context_templates

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
    assert (measured.documents, measured.pieces) == (len(wanted), 0)
    assert measured.tokens == sum(len(tiny.tokenizer(text)["input_ids"]) for text in wanted)


@pytest.mark.parametrize("stop_after", [1, 2, 5])
def test_a_measurement_goes_on_to_the_same_bits(tiny: LoadedModel, stop_after: int) -> None:
    """Broken off after some passes, in the middle of a document, and taken up again: bit for bit the same sums."""
    texts = [" ".join(SENTENCES) * 2, *SENTENCES, " ".join(SENTENCES)]
    options = {"length": 7, "batch": 20}
    whole = measure_covariance(tiny, texts, LAYERS, **options)

    class StoppedError(Exception):
        pass

    passes: list[Measured] = []

    def stop(measured: Measured) -> None:
        passes.append(measured)
        if len(passes) == stop_after:
            raise StoppedError

    with pytest.raises(StoppedError):
        measure_covariance(tiny, texts, LAYERS, on_pass=stop, **options)
    there = passes[-1]
    assert there.pieces > 0 or there.documents > 0
    resumed = measure_covariance(tiny, texts[there.documents :], LAYERS, so_far=there, **options)
    assert resumed.tokens == whole.tokens
    assert resumed.documents == whole.documents == len(texts)
    for name, moment in whole.moments.items():
        assert torch.equal(resumed.moments[name].total, moment.total)


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
