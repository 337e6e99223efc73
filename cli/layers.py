"""`collab layers`: causal tracing of facts that a model knows, and the layers to edit."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import click
from pydantic import BaseModel, ConfigDict, Field

from collabedit.cli.inputs import demand_folder_of
from collabedit.cli.output import print_table, say
from collabedit.common.command import load_settings, options_of, print_json
from collabedit.common.edits import Edit
from collabedit.common.errors import BadEditsError, UsageError
from collabedit.common.settings import DEVICE, MODEL_DTYPE, ModelDtype

if TYPE_CHECKING:
    from collabedit.cli.heat_map import HeatMap
    from collabedit.client.layer_choice import Average, Averages, Choice
    from collabedit.client.probes import Probe
    from collabedit.client.tracing import Trace
    from collabedit.common.model_folder import ModelFolder


class LayersOptions(BaseModel):
    """The flags of `collab layers`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="a bundled model's name (atlas) or a Hugging Face model folder")
    prompts: Path | None = Field(
        default=None,
        description="facts that the model may know: ROME's known_1000.json, the same as JSON lines, or edits with"
        " target_true; - reads standard input [default: the facts bundled with atlas]",
    )
    max_facts: int | None = Field(default=None, ge=1, description="only the first so many of them [default: all]")
    noise: float = Field(
        default=3.0, gt=0, le=1000, description="times the standard deviation of the subjects' embeddings"
    )
    samples: int = Field(default=10, ge=1, le=10_000, description="draws of the noise for each fact")
    window: int | None = Field(
        default=None,
        ge=1,
        description="layers whose MLPs, or attentions, are restored together [default: 10, at most a quarter of the"
        " model's]",
    )
    seed: int = Field(default=0, ge=0, description="of the noise")
    batch_tokens: int = Field(default=4096, ge=1, description="most tokens of a pass: bounds the memory")
    device: str = Field(default="cpu", description=DEVICE)
    model_dtype: ModelDtype = Field(default="float32", description=MODEL_DTYPE)
    skip_invalid: bool = Field(default=False, description="leave bad records out instead of refusing the file")
    per_fact: int = Field(
        default=0, ge=0, le=1000, description="also draw the first so many facts one by one, beside the picture"
    )
    out: Path | None = Field(default=None, description="picture to write [default: MODEL-layers.png in this folder]")


@dataclass(frozen=True)
class Traced:
    """What a run found. asked: how many facts were read; std: of the noise; window: of the run."""

    folder: ModelFolder
    asked: int
    traces: list[Trace]
    std: float
    window: int
    found: Averages
    choice: Choice

    @property
    def means(self) -> tuple[float, float]:
        """P(object) over the facts: clean, corrupted."""
        return fmean(trace.clean for trace in self.traces), fmean(trace.corrupted for trace in self.traces)

    @property
    def preset(self) -> tuple[int, ...] | None:
        """The layers that the model's folder says to edit, if it does."""
        return self.folder.preset.layers if self.folder.preset else None


@click.command("layers")
@options_of(LayersOptions)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def layers(as_json: bool, **flags: Any) -> None:
    """Causal tracing (ROME): where a model keeps its facts, as a heat map, and which layers to edit.

    Noise hides the subject of each fact that the model knows; then single states are put back to what they were without
    it. The picture shows how much of the object's probability each brings back, by layer and token. Facts whose object
    is not the model's own answer are left out.

    \b
    Examples:
      collab layers --model atlas
      collab layers --model ./gpt2-xl --prompts known_1000.json --out gpt2-xl.png --device cuda
    """
    options = load_settings(LayersOptions, flags)
    from collabedit.common.model_folder import find_model

    folder = find_model(options.model)
    out = options.out or Path(f"{folder.name}-layers.png")
    demand_folder_of(out)
    facts = _facts(options, folder)[: options.max_facts]
    traced = _trace(options, folder, facts)
    pictures = _draw(options, traced, out)
    if as_json:
        print_json({**_figures(options, traced), "pictures": [str(each) for each in pictures]})
    else:
        _print(traced, pictures)


def _facts(options: LayersOptions, folder: ModelFolder) -> Sequence[Edit]:
    """The facts of the file, or those that the bundled edits of the model are to replace."""
    from collabedit.client import known_facts
    from collabedit.client.edit_file import problem_lines
    from collabedit.experiments.bundled import FOLDERS, party_edits

    if options.prompts is None:
        if not (folder.path / "edits" / FOLDERS[10]).is_dir():
            raise UsageError(
                f"{folder.name}: no facts in the model's folder",
                mend="give --prompts: ROME's known_1000.json, or your edits with target_true",
            )
        edits = (edit for party in party_edits(folder, 10) for edit in party)
        return [edit.model_copy(update={"target_new": edit.target_true}) for edit in edits if edit.target_true]
    from_stdin = str(options.prompts) == "-"
    parsed = known_facts.parse_facts(sys.stdin.read()) if from_stdin else known_facts.read_facts(options.prompts)
    lines = problem_lines(options.prompts, parsed)
    if lines and not options.skip_invalid:
        raise BadEditsError("\n".join(lines), mend="mend the file, or leave such records out with --skip-invalid")
    for line in lines:
        say(f"skipped {line}")
    if not parsed.edits:
        raise BadEditsError(
            f"{options.prompts}: no facts in it", mend='a record is {"subject": …, "prompt": …, "attribute": …}'
        )
    return parsed.edits


def _trace(options: LayersOptions, folder: ModelFolder, facts: Sequence[Edit]) -> Traced:
    """The slow part: the model, what it knows of the facts, every restoration."""
    from collabedit.client.layer_choice import averages, choose
    from collabedit.client.loading import load_model
    from collabedit.client.noise import embedding_std
    from collabedit.client.probes import known
    from collabedit.client.tracing import default_window, trace
    from collabedit.client.voice import Voice

    loaded = load_model(folder, device=options.device, dtype=options.model_dtype)
    probes = known(loaded, facts, batch=options.batch_tokens)
    _demand_known(folder, facts, probes)
    std, window = options.noise * embedding_std(loaded, probes), options.window or default_window(len(loaded.blocks))
    with Voice().progress(f"tracing {len(probes)} facts") as tick:
        traces = trace(
            loaded, probes, std=std, window=window, samples=options.samples, seed=options.seed,
            batch=options.batch_tokens, on_progress=tick,
        )  # fmt: skip
    found = averages(traces)
    return Traced(folder, len(facts), traces, std, window, found, choose(found))


def _demand_known(folder: ModelFolder, facts: Sequence[Edit], probes: Sequence[Probe]) -> None:
    if not probes:
        raise UsageError(
            f"{folder.name} knows none of the {len(facts)} facts: its own answer is another one each time",
            mend="give --prompts with facts that the model names by itself; a model without any cannot be traced",
        )
    if len(probes) < len(facts):
        say(f"{len(facts) - len(probes)} of {len(facts)} facts left out: the model's own answer is another one")


def _draw(options: LayersOptions, traced: Traced, out: Path) -> list[Path]:
    """Writes the pictures and gives their paths: the averages' first, then those of single facts."""
    from collabedit.cli.heat_map import of_all, of_one

    model = traced.folder.name
    choice = traced.choice.layers
    drawn: dict[Path, HeatMap] = {out: of_all(model, traced.traces, traced.found, choice, traced.window, traced.means)}
    for number, trace in enumerate(traced.traces[: options.per_fact], start=1):
        drawn[out.with_name(f"{out.stem}-fact-{number:02}.png")] = of_one(model, trace, traced.window)
    for path, picture in drawn.items():
        try:
            picture.draw(path)
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}", mend="give --out a file that can be written") from error
    return list(drawn)


def _figures(options: LayersOptions, traced: Traced) -> dict[str, Any]:
    """The object of --json; a standard error that a single fact does not have is null."""
    from collabedit.client.layer_choice import RULE

    clean, corrupted = traced.means
    choice = traced.choice
    return {
        "model": traced.folder.name,
        "layers": len(traced.found["last subject token"]["mlp"].mean),
        "facts": len(traced.traces),
        "left_out": traced.asked - len(traced.traces),
        "noise": {"factor": options.noise, "std": traced.std, "samples": options.samples, "seed": options.seed},
        "window": traced.window,
        "clean": clean,
        "corrupted": corrupted,
        "effects": {
            name: {"facts": by_kind["hidden"].facts, **{kind: _figure(each) for kind, each in by_kind.items()}}
            for name, by_kind in traced.found.items()
        },
        "recommended": {
            "layers": choice.layers, "peak": choice.peak, "sure": choice.sure, "carried_to": choice.carried_to,
            "rule": RULE,
        },
        "preset": traced.preset,
    }  # fmt: skip


def _figure(average: Average) -> dict[str, Any]:
    return {"mean": average.mean, "error": [None if isnan(each) else each for each in average.error]}


def _print(traced: Traced, pictures: Sequence[Path]) -> None:
    by_kind = traced.found["last subject token"]
    columns = [by_kind["hidden"], by_kind["mlp"], by_kind["attention"]]
    rows = [
        [layer, *(_cell(each, layer) for each in columns), "*" if layer in traced.choice.layers else ""]
        for layer in range(len(columns[0].mean))
    ]
    clean, corrupted = traced.means
    together = f"in windows of {traced.window} layers" if traced.window > 1 else "of one layer at a time"
    click.echo(
        f"{len(traced.traces)} facts, mean P(object) {clean:.3f} clean, {corrupted:.3f} corrupted. "
        "Indirect effects at the subject's last token,\n"
        f"mean ± standard error over facts; MLPs and attentions {together}:\n"
    )
    print_table(["layer", "hidden", "MLP", "attention", "recommended"], rows)
    click.echo(f"\n{_advice(traced)}\n{', '.join(map(str, pictures))}")


def _cell(average: Average, layer: int) -> str:
    error = average.error[layer]
    return f"{average.mean[layer]:+.3f}" + ("" if isnan(error) else f" ± {error:.3f}")


def _advice(traced: Traced) -> str:
    """The recommended layers in words, how sure they are, and what the preset says."""
    from collabedit.client.layer_choice import RULE

    choice, lines = traced.choice, []
    if choice.layers:
        lines.append(f"recommended layers: {_listed(choice.layers)} ({RULE})")
    else:
        lines.append("no layers recommended: no MLP at the subject's last token brings anything back")
    if choice.layers and not choice.sure:
        lines.append("the peak is less than two standard errors above 0: trace more facts")
    lines.append(f"the state at the subject's last token carries the fact up to layer {choice.carried_to}")
    if traced.preset is not None:
        lines.append(f"the preset in the model's folder edits layers {_listed(traced.preset)}")
    return "\n".join(lines)


def _listed(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers))
