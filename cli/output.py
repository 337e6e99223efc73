"""What the commands print: results on standard output, a table or one JSON object; the rest on standard error."""

from __future__ import annotations

import click

from collabedit.common.tables import PLAIN_WIDTH, print_table, shown

__all__ = ["PLAIN_WIDTH", "print_table", "say", "shown"]


def say(line: str) -> None:
    """One line of advice, on standard error."""
    click.echo(line, err=True)
