"""`collab eval`: metrics of a model, with or without merged weights, on a file of records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import BaseModel, ConfigDict, Field

from collabedit.cli.inputs import read_edits
from collabedit.cli.output import print_table
from collabedit.common.command import load_settings, options_of, print_json
from collabedit.common.settings import DEVICE, MODEL_DTYPE, ModelDtype

if TYPE_CHECKING:
    from collabedit.client.loading import LoadedModel
    from collabedit.client.metrics import Scores


class EvalOptions(BaseModel):
    """The flags of `collab eval`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="a bundled model's name (atlas) or a Hugging Face model folder")
    weights: Path | None = Field(default=None, description="merged weights by `collab merge`, put into the model first")
    records: Path = Field(
        description="CounterFact, zsRE or plain edits, one JSON object a line; - reads standard input"
    )
    each: bool = Field(default=False, description="a line for each record besides the means")
    device: str = Field(default="cpu", description=DEVICE)
    model_dtype: ModelDtype = Field(default="float32", description=MODEL_DTYPE)
    skip_invalid: bool = Field(default=False, description="leave bad lines out instead of refusing the file")


@click.command("eval")
@options_of(EvalOptions)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def evaluate(as_json: bool, **flags: Any) -> None:
    """Efficacy (ES), paraphrases (PS), neighbours (NS), their harmonic mean (Score): fractions of 1.

    A kind that the records have no prompts for, or no target_true to compare with, is left out. EA is the mean share of
    the new target's tokens that are the model's first choice.

    \b
    Examples:
      collab eval --model atlas --records mine.jsonl
      collab eval --model atlas --weights merged.safetensors --records mine.jsonl --json
    """
    from collabedit.client.loading import load_model
    from collabedit.client.metrics import score
    from collabedit.client.voice import Voice
    from collabedit.common.model_folder import find_model

    options = load_settings(EvalOptions, flags)
    records = read_edits(options.records, skip_invalid=options.skip_invalid)
    loaded = load_model(find_model(options.model), device=options.device, dtype=options.model_dtype)
    if options.weights:
        put_weights(loaded, options.weights)
    with Voice().progress(f"scoring {len(records)} records") as tick:
        scores = score(loaded, records, on_progress=tick)
    if as_json:
        print_json({"model": options.model, "records": len(records), **_figures(scores, options.each)})
    else:
        _print(scores, options.each)


def put_weights(loaded: LoadedModel, file: Path) -> None:
    """Writes the tensors of a file of merged weights, each [d_out, d_in], into a model in memory."""
    from collabedit.client.weights import write_weight
    from collabedit.common.errors import CollabEditError
    from collabedit.common.tensor_file import TensorFile

    tensors = TensorFile.open(file)
    try:
        for name in tensors.names:
            write_weight(loaded, name, tensors.tensor(name))
    except CollabEditError as error:
        raise type(error)(f"{file}: {error.what}", mend="give the file that `collab merge` wrote") from error


def _figures(scores: Scores, each: bool) -> dict[str, Any]:
    figures: dict[str, Any] = {**scores.row(), "EA": scores.correct}
    if each:
        figures["edits"] = [
            {"id": e.id, "ES": e.efficacy, "PS": e.paraphrase, "NS": e.neighborhood, "EA": e.correct}
            for e in scores.edits
        ]
    return figures


def _print(scores: Scores, each: bool) -> None:
    if each:
        rows = [[e.id, e.efficacy, e.paraphrase, e.neighborhood, e.correct] for e in scores.edits]
        print_table(["record", "ES", "PS", "NS", "EA"], rows)
        click.echo()
    print_table(
        ["records", "ES", "PS", "NS", "Score", "EA"],
        [[len(scores.edits), scores.ES, scores.PS, scores.NS, scores.Score, scores.correct]],
    )
