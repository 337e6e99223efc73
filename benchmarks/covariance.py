"""Tokens per second of C0's measurement: one pass for all layers, beside one pass a layer.

    python benchmarks/covariance.py                                              (atlas, its three layers)
    python benchmarks/covariance.py --size gpt2-xl --layers 18 --edited 13-17    (GPT-2 XL's shapes, random weights)

The other side is the published way: for each layer a run of its own over the text, which stops behind that layer. Both
sides take turns in one process, over the same text in the same batches, and sum the same products in float64 by the
same code. A layer's share of the product and of the forward pass is measured apart. The last line is one JSON object.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence

import click
import torch

from collabedit.client.covariance import Limit, measure_covariance
from collabedit.client.loading import LoadedModel, load_model
from collabedit.common.architectures import architecture_of
from collabedit.common.model_folder import ModelFolder, find_model
from collabedit.common.moments import MomentSum
from collabedit.experiments.atlas.text import general_text
from collabedit.experiments.atlas.world import build_world

WIDTH, HEADS = 1600, 25  # GPT-2 XL's


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


def product_seconds(d_in: int, tokens: int) -> float:
    """Seconds of one layer's products of so many vectors."""
    rows, total = torch.randn(min(tokens, 2048), d_in), MomentSum.empty(d_in)
    total.add(rows)
    return seconds_of(lambda: total.add(rows)) * tokens / len(rows)


@click.command()
@click.option("--size", type=click.Choice(["atlas", "gpt2-xl"]), default="atlas")
@click.option("--layers", default=18, help="with gpt2-xl: how many the model has")
@click.option("--edited", default="13-17", help="with gpt2-xl: first and last of the layers that are measured")
@click.option("--tokens", default=20_000, help="of text")
@click.option("--turns", default=2, help="of each side; the fastest counts")
@click.option("--threads", default=0, help="torch's threads; 0: its own choice")
def main(size: str, layers: int, edited: str, tokens: int, turns: int, threads: int) -> None:
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
    texts = [" ".join(general_text(build_world(), seed, documents=40)) for seed in range(40)]

    def measure(which: Sequence[int]) -> int:
        return measure_covariance(loaded, texts, which, limit=Limit(tokens=tokens)).tokens

    counted = measure(measured)
    one, each = [], []
    for _ in range(turns):
        one.append(seconds_of(lambda: measure(measured)))
        each.append(seconds_of(lambda: [measure((layer,)) for layer in measured]))
    d_in = loaded.rewrite_module(folder.preset, measured[0]).weight.numel() // loaded.model.config.n_embd
    product = len(measured) * product_seconds(d_in, counted)
    figures = {
        "model": size, "layers": len(loaded.blocks), "measured": list(measured), "d_in": d_in, "tokens": counted,
        "threads": torch.get_num_threads(), "one_pass_tokens_per_second": counted / min(one),
        "pass_a_layer_tokens_per_second": counted / min(each), "ratio": min(each) / min(one),
        "share_of_the_float64_products": product / min(one),
    }  # fmt: skip
    print(f"one pass for {len(measured)} layers     {figures['one_pass_tokens_per_second']:9.0f} tokens/s")
    print(f"one pass a layer          {figures['pass_a_layer_tokens_per_second']:9.0f} tokens/s")
    print(f"ratio                     {figures['ratio']:9.2f}")
    print(f"float64 products' share   {figures['share_of_the_float64_products']:9.0%} of the one pass")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
