"""`collab-client status`: what became of every edit, read beside a client at work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
from pydantic import BaseModel, ConfigDict, Field

from collabedit.client.config import default_state
from collabedit.client.edit_life import EditStatus
from collabedit.client.state_folder import StateFolder
from collabedit.common.command import load_settings, options_of, print_json

STATES: Final = click.Choice([each.value for each in EditStatus])
COLUMNS: Final = (
    *("edit", "line", "subject", "target", "state", "round", "version"),
    *("ES", "PS", "NS", "right", "reason"),
)


class StatusOptions(BaseModel):
    """`collab-client status`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: Path | None = Field(default=None, description="folder of the client's state [default: in your state folder]")


@click.command("status", short_help="What became of every edit.", context_settings={"max_content_width": 110})
@options_of(StatusOptions)
@click.option(
    "--only",
    multiple=True,
    type=STATES,
    help="Edits in this state alone; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with each edit's whole life.")
def status(only: Sequence[str], as_json: bool, **flags: Any) -> None:
    """What became of every edit, and why; a client may run on the same folder meanwhile.

    \b
    Examples:
      collab-client status
      collab-client status --only failed --only in-conflict
      collab-client status --state ./mine --json
    """
    from collabedit.client.ledger_view import ledger_object

    folder = StateFolder(load_settings(StatusOptions, flags).state or default_state())
    told = {"state": str(folder.path), **ledger_object(folder.ledger, only, lives=as_json)}
    if as_json:
        print_json(told)
    else:
        _print(told)


def _print(told: Mapping[str, Any]) -> None:
    from collabedit.common.tables import print_table

    rows = [_row(each) for each in told["edits"]]
    if rows:
        print_table(COLUMNS, rows)
        click.echo()
    click.echo(_summary(told))


def _row(edit: Mapping[str, Any]) -> list[Any]:
    scores = edit["scores"] or {}
    return [
        edit["id"],
        edit["line"] if edit["present"] else None,
        edit["subject"],
        edit["target_new"],
        edit["status"] + (", augmented" if edit["augmented"] else ""),
        edit["round"],
        edit["version"],
        *(scores.get(name) for name in ("ES", "PS", "NS", "correct")),
        edit["reason"],
    ]


def _summary(told: Mapping[str, Any]) -> str:
    """`24 edits: 20 verified, 4 failed; in round 3; 19 of 20 held on version 2`."""
    counts = ", ".join(f"{count} {name}" for name, count in told["counts"].items() if count)
    parts = [f"{sum(told['counts'].values())} edits" + (f": {counts}" if counts else "")]
    if told["round"] is not None:
        parts.append(f"in round {told['round']}")
    if tested := [each for each in told["retention"] if each["tested"]]:
        last = tested[-1]
        parts.append(f"{last['held']} of {last['tested']} held on version {last['version']}")
    return "; ".join(parts)
