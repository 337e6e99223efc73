"""Edits per second of the search for z, beside one edit at a time by full forward passes.

    python benchmarks/find_targets.py --model atlas --edits 24
    python benchmarks/find_targets.py --size gpt2 --edits 12        (GPT-2's sizes, random weights, no stopping early)

The other side is the search as it is usually written: one edit, its rows in one batch, every step a full pass from the
first token through every layer, logits of the whole vocabulary everywhere. Both sides take turns in one process and
must find the same z. The last line is one JSON object.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import click
import torch
from torch import Tensor

from collabedit.client.loading import LoadedModel, load_model
from collabedit.client.lookup import Row, drift_row, rewriting_rows
from collabedit.client.passes import Padded, pad
from collabedit.client.targets import find_targets
from collabedit.common.architectures import architecture_of
from collabedit.common.edits import Edit, parse_lines
from collabedit.common.hparams import HyperParameters
from collabedit.common.model_folder import ModelFolder, find_model

SIZES = {"gpt2": (768, 12, 12, (3, 4, 5, 6, 7)), "gpt2-medium": (1024, 24, 16, (6, 7, 8, 9, 10))}


def one_at_a_time(
    loaded: LoadedModel, edit: Edit, hparams: HyperParameters, templates: Sequence[Sequence[str]]
) -> Tensor:
    """z of one edit, [d_model]."""
    rows = (*rewriting_rows(loaded, edit, templates), drift_row(loaded, edit))
    padded = pad(rows, loaded.device)
    h0: list[Tensor] = []
    delta: Tensor | None = None

    def add(_module: torch.nn.Module, _args: object, states: Tensor) -> Tensor:
        h0.append(states[0, padded.column].detach().clone())
        return states if delta is None else torch.cat(
            [states[:, : padded.column], states[:, padded.column :][:, :1] + delta, states[:, padded.column + 1 :]], 1
        )  # fmt: skip

    handle = loaded.blocks[hparams.layers[-1]].register_forward_hook(add)
    try:
        with torch.no_grad():
            p0 = _log_probabilities(loaded, padded)[-1, padded.column]
        start = h0[0]
        delta = torch.zeros_like(start, requires_grad=True)
        optimiser = torch.optim.Adam([delta], lr=hparams.v_lr)
        for step in range(hparams.v_num_grad_steps):
            everywhere = _log_probabilities(loaded, padded)
            nll = sum(_nll(everywhere[i], row, padded.column) for i, row in enumerate(rows[:-1])) / (len(rows) - 1)
            p = everywhere[-1, padded.column]
            decay = hparams.v_weight_decay * delta.norm() / start.norm() ** 2
            loss = nll + hparams.kl_factor * (p0.exp() * (p0 - p)).sum() + decay
            if loss < 0.05 or step == hparams.v_num_grad_steps - 1:
                break
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            most = hparams.clamp_norm_factor * start.norm()
            with torch.no_grad():
                delta.mul_(min(1.0, float(most / delta.norm())))
    finally:
        handle.remove()
    return (start + delta).detach()


def _log_probabilities(loaded: LoadedModel, padded: Padded) -> Tensor:
    out = loaded.model(input_ids=padded.ids, attention_mask=padded.mask, position_ids=padded.positions, use_cache=False)
    return out.logits.log_softmax(-1)


def _nll(logp: Tensor, row: Row, column: int) -> Tensor:
    first = column + len(row.ids) - len(row.labels) - row.subject
    return -logp[torch.arange(first, first + len(row.labels)), torch.tensor(row.labels)].mean()


def random_model(size: str, atlas: LoadedModel) -> LoadedModel:
    """A model of GPT-2's sizes with random weights, read through atlas's tokenizer."""
    from transformers import GPT2Config, GPT2LMHeadModel

    width, layers, heads, _ = SIZES[size]
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_embd=width, n_layer=layers, n_head=heads)).eval().requires_grad_(False)
    return LoadedModel(model, atlas.tokenizer, architecture_of("gpt2"), ModelFolder(atlas.folder.path, size))


@click.command()
@click.option("--model", default="atlas", help="a bundled model's name, or a folder")
@click.option("--size", type=click.Choice(sorted(SIZES)), help="a random model of this size in its place")
@click.option("--edits", "count", default=24, help="how many edits")
@click.option("--slow-edits", "slow", default=8, help="how many of them the slow side does too")
@click.option("--threads", default=0, help="torch's threads; 0: its own choice")
def main(model: str, size: str | None, count: int, slow: int, threads: int) -> None:
    """Prints edits per second of both sides and their ratio."""
    if threads:
        torch.set_num_threads(threads)
    folder = find_model(model)
    loaded, hparams, templates = load_model(folder), folder.preset, folder.context_templates
    assert hparams is not None
    assert templates is not None
    lines = [
        line for file in sorted((folder.path / "edits" / "ten").glob("*")) for line in file.read_text().splitlines()
    ]
    edits = parse_lines(lines).edits[:count]
    if size:
        loaded = random_model(size, loaded)
        hparams = hparams.model_copy(update={"layers": SIZES[size][3], "v_loss_layer": None, "clamp_norm_factor": 0.75})
    find_targets(loaded, edits[:2], hparams, templates)  # both sides begin with warm libraries
    began = time.perf_counter()
    slowly = torch.stack([one_at_a_time(loaded, edit, hparams, templates) for edit in edits[:slow]], 1)
    halfway = time.perf_counter()
    targets = find_targets(loaded, edits, hparams, templates)
    ended = time.perf_counter()
    distance = ((targets.z[:, :slow] - slowly).norm(dim=0) / slowly.norm(dim=0)).max()
    figures = {
        "model": size or model,
        "one_at_a_time_edits_per_second": slow / (halfway - began),
        "batched_edits_per_second": len(edits) / (ended - halfway),
        "ratio": len(edits) / (ended - halfway) * (halfway - began) / slow,
        "largest_relative_distance_of_z": float(distance),
        "mean_steps": sum(targets.steps) / len(edits),
        "threads": torch.get_num_threads(),
    }
    print(f"one at a time, full passes  {figures['one_at_a_time_edits_per_second']:8.2f} edits/s")
    print(f"batched, on kept prefixes   {figures['batched_edits_per_second']:8.2f} edits/s")
    print(f"ratio                       {figures['ratio']:8.1f}")
    print(f"largest distance of z       {figures['largest_relative_distance_of_z']:8.1e}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
