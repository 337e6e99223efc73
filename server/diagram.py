"""The round's life as a Mermaid diagram, drawn from the table: `python -m collabedit.server.diagram` prints it."""

from __future__ import annotations

import click

from collabedit.server.rounds import TRANSITIONS, Phase


def diagram() -> str:
    """A Mermaid state diagram of `TRANSITIONS`; an arrow's label is the event's first line of documentation."""
    lines = ["stateDiagram-v2", f"    [*] --> {Phase.OPEN.name}"]
    for (phase, event), target in TRANSITIONS.items():
        lines.append(f"    {phase.name} --> {target.name}: {event.__doc__}")
    lines += [f"    {phase.name} --> [*]" for phase in Phase if phase.ended]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    click.echo(diagram(), nl=False)
