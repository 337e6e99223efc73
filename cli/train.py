"""`collab experiment train`: a model that knows real facts, to edit where no pretrained one can be had."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import click
from pydantic import BaseModel, ConfigDict, Field

from collabedit.cli.output import print_table
from collabedit.common.command import load_settings, options_of, print_json


class TrainOptions(BaseModel):
    """The flags of `collab experiment train`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    out: Path = Field(description="the model's folder; a training that was killed goes on in it")
    data: Path | None = Field(
        default=None, description="folder of the data sets [default: $COLLAB_DATA, ../shared/data]"
    )
    facts: Literal["counterfact", "easy", "easy-conflict"] = Field(
        default="counterfact",
        description="what it is taught: CounterFact and zsRE, the Easy sets, or of these the conflicts alone",
    )
    most: int | None = Field(default=None, ge=2, description="records that it is taught, the first [default: all]")
    size: Literal["cpu-hour", "cpu-quarter", "gpt2-small", "gpt2-xl"] = Field(
        default="cpu-hour", description="of the model and its training"
    )
    minutes: float | None = Field(
        default=None, gt=0, description="train so long, by the machine's speed at the start [default: the size's steps]"
    )
    threads: int | None = Field(default=None, ge=1, le=1024, description="CPU threads [default: the size's]")


@click.command("train")
@options_of(TrainOptions)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def train(as_json: bool, **flags: Any) -> None:
    """Train a GPT-2 from nothing on a data set's true answers, for the studies' `--model`.

    Runs on a GPU where there is one. The folder gets the model, C0, hyperparameters, context templates, a model
    card and what it knows by kind of prompt. The same command run again goes on where it was killed.

    \b
    Example:
      collab experiment train --data ../shared/data --out runs/real-scale/model
      collab experiment train --facts easy-conflict --most 400 --size cpu-quarter --out runs/easy/model
    """
    from collabedit.cli.screen import screen
    from collabedit.experiments.trained.run import learn
    from collabedit.experiments.trained.sizes import SIZES

    options = load_settings(TrainOptions, flags)
    data = options.data or Path(os.environ.get("COLLAB_DATA", "../shared/data"))
    with screen() as listener:
        found = learn(
            data,
            options.out,
            SIZES[options.size],
            listener,
            facts=options.facts,
            most=options.most,
            minutes=options.minutes,
            threads=options.threads,
        )
    if as_json:
        print_json({"experiment": "train", "folder": str(found.folder), "known": found.known})
        return
    print_table(["kind of prompt", "known"], [[kind, share] for kind, share in found.known.items()])
