"""A client with many edits beside one with few: what it costs to see where it stands, and `collab-client status`.

    python benchmarks/ledger.py                            (5,000 edits beside 50)
    python benchmarks/ledger.py --edits 50000

A look around is what a client does before each of its steps, and whenever the round or its file has news: with every
edit waiting, in a round, merged, and scored. Commands are processes with an interpreter of their own, beside `python -c
pass`. Each line is processor time of the fastest of several turns: other work on the machine slows turns, not the code.
The last line is one JSON object.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

from collabedit.cli.output import print_table
from collabedit.client.equipment import Equipment
from collabedit.client.snapshot import Membership, Outcome, Phase
from collabedit.client.state import ClientState
from collabedit.client.state_folder import StateFolder
from collabedit.client.steps import Steps
from collabedit.common.edits import Edit, Parsed

TURNS = 7
FEW = 50
SCORES = {"took": True, "ES": 1.0, "PS": 1.0, "NS": 1.0, "correct": 1.0, "probability": 0.9}


def an_edit(number: int) -> Edit:
    """One of CounterFact's size: two paraphrases, ten neighbours."""
    subject = f"Person number {number}"
    return Edit(
        prompt="The mother tongue of {} is",
        subject=subject,
        target_new="French",
        target_true="Dutch",
        relation_id="P103",
        paraphrase_prompts=(f"It is said. {subject}, a native", f"{subject} spoke the language"),
        neighborhood_prompts=tuple(f"The mother tongue of neighbour {number}-{each} is" for each in range(10)),
        id=str(number),
    )


def steps_of(folder: StateFolder, state: ClientState) -> Steps:
    """A client on that ledger, of whose model and server nothing is asked."""
    quiet = SimpleNamespace(
        settings=SimpleNamespace(min_edits=8, detection="off"),
        model=SimpleNamespace(base=SimpleNamespace(version=1), applied=0),
        intake=SimpleNamespace(blocked=False),
    )
    rest = {"federation": None, "workshop": None, "news": None, "voice": None, "batch_tokens": None}
    return Steps(Equipment(folder=folder, state=state, **vars(quiet), **rest))  # type: ignore[arg-type]


def fastest(act: Callable[[], Any]) -> float:
    """Milliseconds of the fastest turn."""
    taken = []
    for _ in range(TURNS):
        began = processor_seconds()
        act()
        taken.append(1000 * (processor_seconds() - began))
    return min(taken)


def processor_seconds() -> float:
    """That this process and those which it has waited for have taken."""
    used = (resource.getrusage(each) for each in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def looked(folder: StateFolder, count: int) -> dict[str, float]:
    """A look around in each stage of a round of all edits; the ledger is then as after the round."""
    edits = tuple(an_edit(number) for number in range(count))
    with ClientState(folder.ledger) as state:
        state.take_in(Parsed(edits, tuple(range(1, count + 1)), ()))
        steps = steps_of(folder, state)
        found = {"waiting": fastest(steps.place)}
        state.enter(1)
        found["in a round"] = fastest(steps.place)
        state.settle(Outcome(1, Phase.PUBLISHED, Membership.CONTRIBUTED, 1))
        found["merged"] = fastest(steps.place)
        state.record_scores({each.key: SCORES for each in edits}, {1: {}})
        found["scored"] = fastest(steps.place)
    return {f"a look around, all {name}": each for name, each in found.items()}


def told(folder: StateFolder) -> dict[str, float]:
    """Commands that tell what became of the edits."""
    client = [str(Path(sys.executable).parent / "collab-client"), "status", "--state", str(folder.path)]
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "collab-client status": client,
        "collab-client status --only failed": [*client, "--only", "failed"],
        "collab-client status --json": [*client, "--json"],
    }
    return {name: fastest(lambda each=each: _run(each)) for name, each in commands.items()}  # type: ignore[misc]


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def measured(folder: Path, count: int) -> dict[str, float]:
    """Every line for so many edits."""
    state = StateFolder(folder / str(count))
    state.make()
    return {**looked(state, count), **told(state)}


@click.command()
@click.option(
    "--edits", type=click.IntRange(min=FEW), default=5000, show_default=True, help="of the client that has many"
)
def main(edits: int) -> None:
    """Measures a client with many edits beside one with few."""
    with tempfile.TemporaryDirectory() as folder:
        few, many = (measured(Path(folder), count) for count in (FEW, edits))
    columns = ("processor ms", f"{FEW} edits", f"{edits:,} edits", "times")
    print_table(columns, [[name, few[name], many[name], many[name] / few[name]] for name in few])
    bare = "python -c pass"
    ratios = {name: many[name] / many[bare] for name in many if name.startswith("collab-client")}
    click.echo("; ".join(f"{name}: {ratio:.1f} times {bare}" for name, ratio in ratios.items()))
    click.echo(json.dumps({"edits": edits, "few": few, "many": many, "times_bare_python": ratios}))


if __name__ == "__main__":
    main()
