"""Edits per second of the search for z, beside one edit at a time by full forward passes.

    python benchmarks/z_search.py                                       (atlas, 256 edits)
    python benchmarks/z_search.py --size gpt2-xl --layers 12 --edits 32 --slow-edits 2 --reference-edits 1
    python benchmarks/z_search.py --size gpt-j --dtype bfloat16 --device cuda

Two other sides. `published`: as MEMIT's public code does it, one edit after the other, its rows in one batch, every
step a full pass from the first token through every layer, logits of the whole vocabulary at every token. `reference`:
the same one row at a time, as the implementation that the tests compare with. All sides take turns in one process,
with the same settings, and must find the same z. A side that does only some of the edits is rated by what one
evaluation of the loss costs it, times the mean number of evaluations of all edits: some stop early. --size takes
random weights of a published model's shapes (--layers: fewer of them, edited at the same relative depth). The last
line is one JSON object.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from collabedit.client.loading import LoadedModel, load_model
from collabedit.client.lookup import Filled, Row, rewriting_rows, subject_token, tokenise
from collabedit.client.targets import Targets, find_targets
from collabedit.common.architectures import architecture_of
from collabedit.common.edits import Edit, parse_lines
from collabedit.common.hparams import HyperParameters
from collabedit.common.model_folder import ModelFolder, find_model

Templates = Sequence[Sequence[str]]
# kind, width, layers, heads, the last edited layer
SIZES = {
    "gpt2": ("gpt2", 768, 12, 12, 4),
    "gpt2-xl": ("gpt2", 1600, 48, 25, 17),
    "gpt-j": ("gptj", 4096, 28, 16, 8),
}
ENOUGH = 0.05
OPENINGS: Templates = (
    ("{}",),
    (
        "The best part of the whole week is. {}",
        "Therefore they decided to wait for the next. {}",
        "Because it had rained all night long, the. {}",
        "I have never been able to find a. {}",
        "You can see the rest of the story. {}",
    ),
)


@dataclass(frozen=True)
class Task:
    """What all sides do."""

    loaded: LoadedModel
    edits: Sequence[Edit]
    hparams: HyperParameters
    templates: Templates


@dataclass
class Side:
    """One way of doing it, the numbers of the edits that it does, and what it took."""

    name: str
    run: Callable[[Sequence[Edit]], Targets]
    task: Task
    numbers: Sequence[int]
    seconds: list[float] = field(default_factory=list)
    found: Targets = field(default_factory=lambda: Targets(torch.empty(0), (), ()))

    def take_turn(self) -> None:
        """Does all its edits once."""
        edits = [self.task.edits[number] for number in self.numbers]
        began = _now()
        self.found = self.run(edits)
        self.seconds.append(_now() - began)

    def rate(self, evaluations: Sequence[int]) -> float:
        """Edits per second of the fastest turn, as if its edits had needed the mean of all `evaluations`."""
        own = sum(evaluations[number] for number in self.numbers)
        return own / min(self.seconds) / (sum(evaluations) / len(evaluations))


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def one_at_a_time(task: Task, edit: Edit, *, together: bool) -> Targets:
    """One edit by full passes. together: its rows in one batch, padded behind; or one row a pass."""
    loaded, hparams = task.loaded, task.hparams
    drift = Filled(f"{edit.subject} is a", 0, len(edit.subject))
    tokens = tokenise(loaded, [drift.text])[0]
    rows = (*rewriting_rows(loaded, edit, task.templates), Row(tokens.ids, subject_token(tokens, drift)))
    passes = [rows] if together else [(row,) for row in rows]
    width = loaded.model.get_input_embeddings().weight.shape[1]
    delta = torch.zeros(width, dtype=loaded.working_dtype, device=loaded.device, requires_grad=True)
    optimiser = torch.optim.Adam([delta], lr=hparams.v_lr)
    for step in range(hparams.v_num_grad_steps):
        done = [_pass(loaded, some, hparams.layers[-1], delta) for some in passes]
        logp = [each for some, _ in done for each in some]
        nll = torch.stack([_nll(each, row) for each, row in zip(logp, rows[:-1], strict=False)]).mean()
        p = logp[-1][rows[-1].subject]
        if step == 0:  # δ is 0 yet
            h0, p0 = done[0][1].to(delta.dtype), p.detach()
        decay = hparams.v_weight_decay * delta.norm() / h0.norm() ** 2
        loss = nll + hparams.kl_factor * (p0.exp() * (p0 - p)).sum() + decay
        if loss < ENOUGH or step == hparams.v_num_grad_steps - 1:
            break
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            delta.mul_((hparams.clamp_norm_factor * h0.norm() / delta.norm()).clamp(max=1))
    return Targets((h0 + delta).detach().cpu().unsqueeze(1), (float(loss.detach()),), (step,))


def _nll(logp: Tensor, row: Row) -> Tensor:
    first = len(row.ids) - len(row.labels)
    return -logp[torch.arange(first, len(row.ids)), torch.tensor(row.labels)].mean()


def _pass(loaded: LoadedModel, rows: Sequence[Row], layer: int, delta: Tensor) -> tuple[list[Tensor], Tensor]:
    """Log-probabilities [tokens, vocabulary] of each row, and the layer's state at the first row's subject before δ."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.tensor([[*row.ids, *[0] * (longest - len(row.ids))] for row in rows], device=loaded.device)
    mask = torch.tensor([[1] * len(row.ids) + [0] * (longest - len(row.ids)) for row in rows], device=loaded.device)
    h0: list[Tensor] = []

    def add(_module: torch.nn.Module, _args: object, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        h0.append(states[0, rows[0].subject].detach().clone())
        states = states.clone()
        for number, row in enumerate(rows):
            states[number, row.subject] = states[number, row.subject] + delta.to(states.dtype)
        return (states, *output[1:]) if isinstance(output, tuple) else states

    handle = loaded.blocks[layer].register_forward_hook(add)
    try:
        logits = loaded.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    finally:
        handle.remove()
    logp = logits.to(loaded.working_dtype).log_softmax(-1)
    return [logp[number, : len(row.ids)] for number, row in enumerate(rows)], h0[0]


def random_model(size: str, layers: int | None, dtype: torch.dtype, device: str, like: LoadedModel) -> LoadedModel:
    """A model of a published one's shapes with random weights, which reads through another's tokenizer."""
    from transformers import GPT2Config, GPT2LMHeadModel, GPTJConfig, GPTJForCausalLM

    kind, width, depth, heads, _ = SIZES[size]
    torch.manual_seed(0)
    shape = {"n_embd": width, "n_layer": layers or depth, "n_head": heads}
    torch.set_default_dtype(dtype)
    with torch.device(device):
        model = GPT2LMHeadModel(GPT2Config(**shape)) if kind == "gpt2" else GPTJForCausalLM(GPTJConfig(**shape))
    torch.set_default_dtype(torch.float32)
    model.eval().requires_grad_(False)
    return LoadedModel(model, like.tokenizer, architecture_of(kind), ModelFolder(like.folder.path, size))


def settings_of(size: str, layers: int | None, preset: HyperParameters) -> HyperParameters:
    """GPT-2 XL's published search (20 steps, clamp 0.75), at the same relative depth; nothing stops early."""
    _, _, depth, _, last = SIZES[size]
    at = round(last * (layers or depth) / depth)
    searched = {"v_num_grad_steps": 20, "v_lr": 0.5, "v_weight_decay": 0.5, "clamp_norm_factor": 0.75}
    return preset.model_copy(update={"layers": (at,), "v_loss_layer": None, "rewrite_module_tmp": "", **searched})


def matrix_rate(dtype: torch.dtype, device: str) -> float:
    """Floating-point operations a second of a large product of matrices: the most that the machine gives."""
    size = 8192 if device.startswith("cuda") else 2048
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(6):
        began = _now()
        a @ b
        seconds.append(_now() - began)
    return 2.0 * size**3 / min(seconds)


@contextmanager
def peak_memory(device: str, figures: dict[str, Any]) -> Iterator[None]:
    """Notes the most GPU memory that was allocated inside."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    yield
    if device.startswith("cuda"):
        figures["peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30


def bundled_edits(folder: ModelFolder) -> list[str]:
    """Every edits file that the model brings, line by line."""
    return [line for file in sorted((folder.path / "edits").rglob("*.jsonl")) for line in file.read_text().splitlines()]


def spread(count: int, some: int) -> list[int]:
    """`some` of the numbers below `count`, evenly."""
    return sorted({number * count // some for number in range(some)}) if some else []


def compare(task: Task, sides: Sequence[Side], turns: int, device: str) -> dict[str, Any]:
    """Every side takes its turns; how far their z are apart, and how much of the machine the engine used."""
    figures: dict[str, Any] = {}
    engine, *others = sides
    for side in sides:  # everybody begins with warm libraries
        side.run(task.edits[:1])
    for _ in range(turns):
        with peak_memory(device, figures):
            engine.take_turn()
        for side in others:
            side.take_turn()
    evaluations = [steps + 1 for steps in engine.found.steps]
    rate = engine.rate(evaluations)
    for side in others:
        z = side.found.z
        apart = (engine.found.z[:, side.numbers] - z).norm(dim=0) / z.norm(dim=0)
        figures[f"{side.name}_edits"] = len(side.numbers)
        figures[f"{side.name}_edits_per_second"] = side.rate(evaluations)
        figures[f"{side.name}_ratio"] = rate / side.rate(evaluations)
        figures[f"{side.name}_largest_distance_of_z"] = float(apart.max())
    with FlopCounterMode(display=False) as counter:
        engine.run(task.edits)
    operations = counter.get_total_flops() / len(task.edits)
    figures["mean_evaluations"] = sum(evaluations) / len(evaluations)
    figures["engine_edits_per_second"] = rate
    figures["engine_operations_per_edit"] = operations
    figures["engine_share_of_matrix_rate"] = operations * rate / matrix_rate(task.loaded.dtype, device)
    return figures


def report(figures: dict[str, Any]) -> None:
    """A line a side, then everything as JSON."""
    print(f"engine                         {figures['engine_edits_per_second']:9.2f} edits/s")
    for name, what in (("published", "one edit at a time"), ("reference", "one row at a time")):
        if f"{name}_ratio" in figures:
            line = f"{name + ', ' + what:31}{figures[f'{name}_edits_per_second']:9.2f} edits/s"
            apart = figures[f"{name}_largest_distance_of_z"]
            print(
                f"{line}   the engine is {figures[f'{name}_ratio']:.1f} times as fast; z apart by {apart:.0e} at most"
            )
    print(f"share of the matrix rate       {figures['engine_share_of_matrix_rate']:9.0%}")
    if "peak_memory_gib" in figures:
        print(f"peak memory                    {figures['peak_memory_gib']:9.1f} GiB")
    print(json.dumps(figures))


@click.command()
@click.option("--model", default="atlas", help="a bundled model's name, or a folder")
@click.option("--size", type=click.Choice(sorted(SIZES)), help="random weights of these shapes in its place")
@click.option("--layers", type=int, help="with --size: so many layers")
@click.option("--edits", "count", default=256, help="how many edits the engine does")
@click.option("--slow-edits", default=256, help="how many of them the published way does too")
@click.option("--reference-edits", default=16, help="how many of them are done one row at a time too")
@click.option("--records", type=click.Path(path_type=Path), help="edits file (CounterFact, …) [default: atlas's]")
@click.option("--tokenizer", type=click.Path(path_type=Path), help="folder of another tokenizer, with --size")
@click.option("--dtype", default="float32", type=click.Choice(["float32", "bfloat16", "float16", "float64"]))
@click.option("--device", default="cpu")
@click.option("--batch", type=int, help="padded tokens under way [default: by the free memory]")
@click.option("--turns", default=2, help="of each side; the fastest counts")
@click.option("--threads", default=0, help="torch's threads; 0: its own choice")
def main(
    model: str,
    size: str | None,
    layers: int | None,
    count: int,
    slow_edits: int,
    reference_edits: int,
    records: Path | None,
    tokenizer: Path | None,
    dtype: str,
    device: str,
    batch: int | None,
    turns: int,
    threads: int,
) -> None:
    """Prints edits per second of all sides and their ratios."""
    if threads:
        torch.set_num_threads(threads)
    folder = find_model(model)
    loaded = load_model(folder, dtype=getattr(torch, dtype), device=device)
    hparams, templates = folder.preset, folder.context_templates or OPENINGS
    lines = records.read_text().splitlines() if records else bundled_edits(folder)
    assert hparams is not None
    if size:
        loaded = random_model(size, layers, getattr(torch, dtype), device, loaded)
        hparams = settings_of(size, layers, hparams)
    if tokenizer:
        from transformers import GPT2TokenizerFast

        reader = GPT2TokenizerFast.from_pretrained(tokenizer)
        loaded, templates = LoadedModel(loaded.model, reader, loaded.architecture, loaded.folder), OPENINGS
    task = Task(loaded, parse_lines(lines).edits[:count], hparams, templates)

    def engine(edits: Sequence[Edit]) -> Targets:
        return find_targets(loaded, edits, hparams, templates, batch=batch)

    def slowly(together: bool) -> Callable[[Sequence[Edit]], Targets]:
        return lambda edits: Targets.joined([one_at_a_time(task, each, together=together) for each in edits])

    many = len(task.edits)
    sides = [
        Side("engine", engine, task, range(many)),
        Side("published", slowly(together=True), task, spread(many, min(many, slow_edits))),
        Side("reference", slowly(together=False), task, spread(many, min(many, reference_edits))),
    ]
    figures = {
        "model": size or model, "layers": len(loaded.blocks), "z_layer": hparams.layers[-1], "dtype": dtype,
        "device": device, "threads": torch.get_num_threads(), "edits": many,
    }  # fmt: skip
    report(figures | compare(task, [side for side in sides if side.numbers], turns, device))


if __name__ == "__main__":
    main()
