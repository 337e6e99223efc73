"""C0's measurement: every token once, every layer in one pass."""

from __future__ import annotations

import pytest
import torch
from engine_reference import SENTENCES

from collabedit.client.covariance import measure_covariance
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
    found = measure_covariance(tiny64, SENTENCES, LAYERS, batch=90)
    for layer in LAYERS:
        name = f"transformer.h.{layer}.mlp.c_proj.weight"
        count, total = by_hand(tiny64, SENTENCES, layer)
        alone = measure_covariance(tiny64, SENTENCES, (layer,))[name]
        assert found[name].count == alone.count == count
        assert torch.allclose(found[name].total, total, rtol=1e-10, atol=1e-12)
        assert torch.allclose(found[name].total, alone.total, rtol=1e-10, atol=1e-12)
        assert torch.allclose(found[name].mean(), total / count)


def test_float32_is_accumulated_in_float64(tiny: LoadedModel, tiny64: LoadedModel) -> None:
    """A float32 model's moment differs from a float64 model's by the vectors' rounding alone."""
    single = measure_covariance(tiny, SENTENCES * 5, LAYERS)
    double = measure_covariance(tiny64, SENTENCES * 5, LAYERS)
    for name, moment in single.items():
        assert moment.total.dtype == torch.float64
        assert float((moment.total - double[name].total).norm() / double[name].total.norm()) < 1e-5


@pytest.mark.parametrize(("most", "length"), [(50, None), (7, 3), (None, 10)])
def test_long_texts_are_cut_and_the_number_of_tokens_kept_to(
    tiny: LoadedModel, most: int | None, length: int | None
) -> None:
    """No more than max_tokens vectors are counted, and no text is lost for being long."""
    texts = [" ".join(SENTENCES) * 3]
    whole = len(tiny.tokenizer(texts[0])["input_ids"])
    seen: list[int] = []
    found = measure_covariance(tiny, texts, LAYERS, max_tokens=most, length=length, batch=30, on_progress=seen.append)
    assert whole > tiny.longest
    assert {moment.count for moment in found.values()} == {whole if most is None else most}
    assert seen == sorted(seen)
    assert seen[-1] == (most or whole)


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
