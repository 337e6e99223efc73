"""Causal tracing against one forward a restoration, and the pieces that it is made of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import tracing_reference
from families import FAMILIES, make_family
from hypothesis import given
from hypothesis import strategies as st

from collabedit.client.loading import LoadedModel, load_model
from collabedit.client.noise import embedding_std, noise_of
from collabedit.client.probes import CLASSES, Probe, probes_of, token_class
from collabedit.client.tracing import KINDS, Trace, default_window, trace, window_of
from collabedit.common.edits import Edit

FACTS = tuple(
    Edit(prompt=prompt, subject=subject, target_new=target)
    for prompt, subject, target in (
        ("{} plays the", "Toko Yasuda", "guitar"),
        ("The capital of {} is", "Norway", "Oslo"),
        ("The capital of Sweden and {}", "Norway", "Stockholm"),
        ("In {}, the language is", "日本", "French"),
        ("The capital of {} is", "Sweden", "Stockholm"),
    )
)
STD, SAMPLES, WINDOW = 0.5, 2, 3


def noise(loaded: LoadedModel, probe: Probe) -> torch.Tensor:
    """The noise of a fact in the tests' traces."""
    width = loaded.model.get_input_embeddings()(torch.tensor([0])).shape[-1]
    return noise_of(probe, width, std=STD, samples=SAMPLES, seed=7)


def traced(loaded: LoadedModel, probes: list[Probe], **how: int) -> list[Trace]:
    """Traces with the tests' settings."""
    return trace(loaded, probes, **{"std": STD, "samples": SAMPLES, "window": WINDOW, "seed": 7, **how})


def check_against_reference(loaded: LoadedModel, found: Trace, tokens: list[int]) -> None:
    """Every kind and layer at some tokens is what one forward a restoration gives."""
    probe, drawn = found.probe, noise(loaded, found.probe)
    assert found.clean == pytest.approx(tracing_reference.probability(loaded, probe, []), rel=1e-9)
    corrupted = [
        tracing_reference.probability(loaded, probe, [tracing_reference.noisy(loaded, probe, each)]) for each in drawn
    ]
    assert found.corrupted == pytest.approx(sum(corrupted) / SAMPLES, rel=1e-9)
    for number, kind in enumerate(KINDS):
        for token in tokens:
            for layer in range(len(loaded.blocks)):
                expected = tracing_reference.restored(loaded, probe, drawn, kind, token, layer, WINDOW)
                assert float(found.restored[number, token, layer]) == pytest.approx(expected, rel=1e-9), (kind, layer)


@pytest.mark.parametrize("name", FAMILIES)
def test_traces_of_every_family_are_those_of_one_forward_a_restoration(name: str, tmp_path: Path) -> None:
    """Single states, and windows of MLPs and attentions, at the subject's last token and at the prompt's."""
    loaded = load_model(make_family(name, tmp_path), dtype=torch.float64)
    (found,) = traced(loaded, probes_of(loaded, FACTS[1:2]))
    check_against_reference(loaded, found, [found.probe.last, len(found.probe.ids) - 1])


@pytest.mark.parametrize("batch", [1, 40, 4096])
def test_batches_change_nothing(tiny64: LoadedModel, batch: int) -> None:
    """Facts of several lengths, in passes of one restoration, of some, of all at once: the same figures, in order."""
    probes = probes_of(tiny64, FACTS)
    together = traced(tiny64, probes, batch=batch)
    assert [each.probe for each in together] == probes
    for probe, found in zip(probes, together, strict=True):
        (alone,) = traced(tiny64, [probe])
        assert torch.allclose(found.restored, alone.restored, rtol=1e-9, atol=0)
    check_against_reference(tiny64, together[0], list(range(len(probes[0].ids))))


def test_what_cannot_have_an_effect_has_none(tiny64: LoadedModel) -> None:
    """Nothing before the subject; all of it, and no more, is back with the last token's state above the last block."""
    for found in traced(tiny64, probes_of(tiny64, FACTS)):
        assert not found.effects[:, : found.probe.first].any()
        hidden = found.restored[KINDS.index("hidden"), :, -1]
        assert float(hidden[-1]) == pytest.approx(found.clean, rel=1e-9)
        assert torch.allclose(hidden[:-1], torch.full_like(hidden[:-1], found.corrupted), rtol=1e-9)


def test_progress_reaches_its_total(tiny64: LoadedModel) -> None:
    """Every restoration is counted: kinds × layers × tokens from the subject's first on."""
    ticks: list[tuple[int, int]] = []
    probes = probes_of(tiny64, FACTS)
    trace(
        tiny64,
        probes,
        std=STD,
        window=1,
        samples=1,
        batch=30,
        on_progress=lambda done, total: ticks.append((done, total)),
    )
    expected = 3 * 5 * sum(len(probe.ids) - probe.first for probe in probes)
    assert ticks[-1] == (expected, expected)
    assert [done for done, _ in ticks] == sorted(done for done, _ in ticks)


def test_the_model_is_left_as_it_was(tiny64: LoadedModel) -> None:
    """No hook and no missing block stays behind."""
    blocks, ids = list(tiny64.blocks), torch.tensor([[3, 4, 5]])
    before = tiny64.model(ids).logits
    traced(tiny64, probes_of(tiny64, FACTS[:1]))
    assert list(tiny64.blocks) == blocks
    assert torch.equal(tiny64.model(ids).logits, before)


def test_noise_is_the_facts_own(tiny64: LoadedModel) -> None:
    """The same for a fact each time; another for another fact, and for another seed; of the deviation asked."""
    first, second = probes_of(tiny64, FACTS[:2])
    drawn = noise_of(first, 32, std=2.0, samples=400, seed=0)
    assert drawn.shape == (400, len(first.subject_ids), 32)
    assert float(drawn.std()) == pytest.approx(2.0, rel=0.02)
    assert torch.equal(drawn, noise_of(first, 32, std=2.0, samples=400, seed=0))
    assert not torch.equal(drawn, noise_of(first, 32, std=2.0, samples=400, seed=1))
    assert not torch.equal(drawn[:1, :1], noise_of(second, 32, std=2.0, samples=1, seed=0)[:, :1])


def test_the_noise_is_measured_on_the_subjects_embeddings(tiny64: LoadedModel) -> None:
    """The standard deviation is over the subjects' tokens, each as often as it occurs."""
    probes = probes_of(tiny64, FACTS)
    ids = [each for probe in probes for each in probe.ids[probe.first : probe.last + 1]]
    expected = tiny64.model.get_input_embeddings().weight[ids].std()
    assert embedding_std(tiny64, probes) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize(
    ("first", "last", "count", "expected"),
    [
        (1, 3, 8, [None, "first", "middle", "last subject", "after", "further", "further", "last token"]),
        (0, 1, 3, ["first", "last subject", "last token"]),
        (0, 0, 3, ["last subject", "after", "last token"]),
        (2, 3, 4, [None, None, "first", "last subject"]),
        (0, 0, 1, ["last subject"]),
    ],
)
def test_token_classes(first: int, last: int, count: int, expected: list[str | None]) -> None:
    """ROME's six classes; a token that could be in two is what tells most: the subject's end, then the prompt's."""
    for index, word in enumerate(expected):
        found = token_class(index, first, last, count)
        assert found is None if word is None else found in CLASSES and word in found, index


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_each_token_has_one_class(before: int, within: int, after: int) -> None:
    """There is one end of the subject in every prompt, and none before the subject has a class."""
    last = before + within
    classes = [token_class(index, before, last, last + 1 + after) for index in range(last + 1 + after)]
    assert classes.count("last subject token") == 1
    assert classes.count("last token") == min(after, 1)
    assert [each is None for each in classes] == [index < before for index in range(len(classes))]


@given(st.integers(1, 60), st.integers(1, 70), st.data())
def test_windows_lie_in_the_model(layers: int, window: int, data: st.DataObject) -> None:
    """A window holds its layer and is as wide as asked, but where the model ends."""
    layer = data.draw(st.integers(0, layers - 1))
    found = window_of(layer, window, layers)
    assert layer in found
    assert found.start >= 0 and found.stop <= layers
    assert len(found) == window or found.start == 0 or found.stop == layers
    assert len(found) <= window


def test_a_window_of_ten_is_romes() -> None:
    """ROME restores from five layers below to four above."""
    assert list(window_of(20, 10, 48)) == list(range(15, 25))
    assert [default_window(layers) for layers in (48, 40, 28, 12, 6, 1)] == [10, 10, 7, 3, 1, 1]
