"""`collab experiment NAME`: the paper's tables and figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from collabedit.cli.output import print_table
from collabedit.common.command import print_json

if TYPE_CHECKING:
    from collabedit.experiments.shape import Shape


@click.group("experiment")
def experiment() -> None:
    """The paper's tables and figures, by name.

    \b
    Examples:
      collab experiment shape
      collab experiment shape --parties 3 --json
    """


@experiment.command("shape")
@click.option("--model", default="atlas", show_default=True, help="A model folder with party edits.")
@click.option("--parties", type=click.Choice(["3", "10"]), default="10", show_default=True, help="How many.")
@click.option("--edits-per-party", type=click.IntRange(min=1), help="The first so many of each.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def shape(model: str, parties: str, edits_per_party: int | None, as_json: bool) -> None:
    """Every method on one round of ten parties: the shape of the paper's Tables 1 and 2, on the bundled model.

    Runs in one process. The z vectors are found once, in one party's batches, and shared by all rows, so that rows
    differ by the merge alone.

    \b
    Example:
      collab experiment shape --json
    """
    from collabedit.cli.screen import screen
    from collabedit.experiments.shape import run_shape

    with screen() as listener:
        found = run_shape(model, int(parties), edits_per_party, listener)
    if as_json:
        print_json(found.as_json())
    else:
        _print(found)


def _print(found: Shape) -> None:
    rows = [[row.method, *row.scores.row().values(), row.distance] for row in found.rows]
    print_table(["method", "ES", "PS", "NS", "Score", "distance"], rows)
    click.echo(
        f"\n{found.parties} parties, {found.edits} edits on {found.model}, {found.seconds:.0f} s."
        "\nThe z vectors were found once, in one party's batches, and are the same in all rows."
        "\ndistance: ‖Δ − Δ_global‖/‖Δ_global‖ over all edited layers."
    )
