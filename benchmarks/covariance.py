"""Tokens per second of C0's measurement: one pass for all layers, beside one pass a layer.

    python benchmarks/covariance.py                                              (atlas, its three layers)
    python benchmarks/covariance.py --size gpt2-xl --layers 18 --edited 13-17    (GPT-2 XL's shapes, random weights)
    python benchmarks/covariance.py --text wiki.txt --separator '\\n\\n\\n'       (documents of all lengths)

The other side is the published way: for each layer a run of its own over the text, which stops behind that layer. Both
sides take turns in one process, over the same text in the same batches, and sum the same products in float64 by the
same code. One more run says how much of the one pass the products are. How much of what goes through the model is
padding is counted without running it, over a million tokens, beside batches in the text's own order. A layer's product
is also timed as one whole [d_in, d_in], and in float32 by blocks of 512 vectors. The last line is one JSON object.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import torch
from torch import Tensor

from collabedit.client import covariance
from collabedit.client.covariance import TOKENS, Limit, measure_covariance
from collabedit.client.documents import TextFile
from collabedit.client.loading import LoadedModel, load_model
from collabedit.client.lookup import Row
from collabedit.client.passes import Padded
from collabedit.common.architectures import architecture_of
from collabedit.common.model_folder import ModelFolder, find_model
from collabedit.common.moments import COLUMNS, MomentSum
from collabedit.experiments.atlas.text import general_text
from collabedit.experiments.atlas.world import build_world

WIDTH, HEADS = 1600, 25  # GPT-2 XL's
DOCUMENTS = 5000  # of the text, at most
PADDING_TOKENS = 1_000_000  # over which padding is counted


def random_model(layers: int, like: LoadedModel) -> LoadedModel:
    """GPT-2 XL's shapes with random weights, which reads through another model's tokenizer."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_embd=WIDTH, n_layer=layers, n_head=HEADS)).eval().requires_grad_(False)
    return LoadedModel(model, like.tokenizer, architecture_of("gpt2"), ModelFolder(like.folder.path, "gpt2-xl"))


def seconds_of(run: Callable[[], object]) -> float:
    """Seconds that a run takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


@dataclass
class Meter:
    """What one run spent on: seconds of the products, tokens and columns that went through the model."""

    products: float = 0.0
    tokens: int = 0
    columns: int = 0


@contextmanager
def metered() -> Iterator[Meter]:
    """Inside, products and passes are counted."""
    meter, add, pad = Meter(), MomentSum.add, covariance.pad

    def timed(self: MomentSum, rows: Tensor) -> None:
        meter.products += seconds_of(lambda: add(self, rows))

    def counted(rows: Sequence[Row], device: torch.device) -> Padded:
        padded = pad(rows, device)
        meter.tokens += int(padded.mask.sum())
        meter.columns += padded.mask.numel()
        return padded

    with patch.object(MomentSum, "add", timed), patch.object(covariance, "pad", counted):
        yield meter


def in_order(window: Sequence[Any], budget: int) -> list[list[Row]]:
    """Batches in the text's own order, as many pieces as fit."""
    batches: list[list[Row]] = []
    for row in (piece.row for piece in window):
        longest = max(len(each.ids) for each in (*(batches[-1] if batches else ()), row))
        if not batches or longest * (len(batches[-1]) + 1) > budget:
            batches.append([])
        batches[-1].append(row)
    return batches


def padding(loaded: LoadedModel, texts: Sequence[str], batches: Callable[..., list[list[Row]]]) -> float:
    """The share of padding in passes over the texts, none of which is run."""
    with metered() as meter, patch.object(covariance, "run_base"), patch.object(covariance, "_batches", batches):
        measure_covariance(loaded, texts, (0,), limit=Limit(tokens=PADDING_TOKENS))
    return 1 - meter.tokens / meter.columns


def by_blocks(total: Tensor, rows: Tensor) -> None:
    """The same half of the products in float32, 512 vectors at a time, summed in float64."""
    for block in rows.split(512):
        for start in range(0, len(total), COLUMNS):
            end = min(start + COLUMNS, len(total))
            total[start:end, :end] += block[:, start:end].mT @ block[:, :end]


def product_rates(d_in: int) -> dict[str, float]:
    """Vectors per second of one layer's products: as they are done, as one whole, in float32."""
    rows, half = torch.randn(2048, d_in), MomentSum.empty(d_in)
    ways: dict[str, Callable[[], object]] = {
        "half_float64": lambda: half.add(rows),
        "whole_float64": lambda: half.total.addmm_(rows.double().mT, rows.double()),
        "half_float32_blocks": lambda: by_blocks(half.total, rows),
    }
    return {name: len(rows) / min(seconds_of(way) for _ in range(3)) for name, way in ways.items()}


def atlas_texts() -> list[str]:
    """Ordinary text of the atlas's world, 40 sentences a document."""
    return [" ".join(general_text(build_world(), seed, documents=40)) for seed in range(40)]


@click.command()
@click.option("--size", type=click.Choice(["atlas", "gpt2-xl"]), default="atlas")
@click.option("--layers", default=18, help="with gpt2-xl: how many the model has")
@click.option("--edited", default="13-17", help="with gpt2-xl: first and last of the layers that are measured")
@click.option("--text", type=Path, help="a text file, read through atlas's tokenizer [default: text of atlas's world]")
@click.option("--separator", default="\\n", help="what stands between documents of the text")
@click.option("--tokens", default=20_000, help="of text")
@click.option("--turns", default=2, help="of each side; the fastest counts")
@click.option("--threads", default=0, help="torch's threads; 0: its own choice")
def main(
    size: str, layers: int, edited: str, text: Path | None, separator: str, tokens: int, turns: int, threads: int
) -> None:
    """Prints tokens per second of both sides and their ratio."""
    if threads:
        torch.set_num_threads(threads)
    folder = find_model("atlas")
    loaded = load_model(folder)
    assert folder.preset is not None
    measured: Sequence[int] = folder.preset.layers
    if size == "gpt2-xl":
        loaded = random_model(layers, loaded)
        first, last = (int(each) for each in edited.split("-"))
        measured = range(first, last + 1)
    texts = atlas_texts() if text is None else TextFile(text, separator.replace("\\n", "\n"))
    kept = list(islice(texts, DOCUMENTS))

    def measure(which: Sequence[int]) -> int:
        return measure_covariance(loaded, kept, which, limit=Limit(tokens=tokens)).tokens

    with metered() as meter:
        whole = seconds_of(lambda: measure(measured))
    packed, plain = (padding(loaded, kept, batches) for batches in (covariance._batches, in_order))
    one, each = [], []
    for _ in range(turns):
        one.append(seconds_of(lambda: measure(measured)))
        each.append(seconds_of(lambda: [measure((layer,)) for layer in measured]))
    d_in = loaded.rewrite_module(folder.preset, measured[0]).weight.numel() // loaded.model.config.n_embd
    rates = product_rates(d_in)
    figures = {
        "model": size, "layers": len(loaded.blocks), "measured": list(measured), "d_in": d_in, "tokens": meter.tokens,
        "batch_tokens": TOKENS, "threads": torch.get_num_threads(),
        "one_pass_tokens_per_second": meter.tokens / min(one),
        "pass_a_layer_tokens_per_second": meter.tokens / min(each), "ratio": min(each) / min(one),
        "share_of_the_float64_products": meter.products / whole,
        "padding": packed, "padding_in_the_texts_order": plain,
        "product_vectors_per_second": rates,
    }  # fmt: skip
    print(f"one pass for {len(measured)} layers     {figures['one_pass_tokens_per_second']:9.0f} tokens/s")
    print(f"one pass a layer          {figures['pass_a_layer_tokens_per_second']:9.0f} tokens/s")
    print(f"ratio                     {figures['ratio']:9.2f}")
    print(f"float64 products' share   {figures['share_of_the_float64_products']:9.1%} of the one pass")
    print(f"padding                   {figures['padding']:9.1%} of a pass")
    print(f"  in the text's order     {figures['padding_in_the_texts_order']:9.1%}")
    print(f"a layer's products        {rates['half_float64']:9.0f} vectors/s")
    print(f"  as one whole            {rates['whole_float64']:9.0f}")
    print(f"  in float32, by blocks   {rates['half_float32_blocks']:9.0f}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
