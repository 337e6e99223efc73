"""`collab sample-edits`: bundled edits of one party, to try things with."""

from __future__ import annotations

import click


@click.command("sample-edits")
@click.option(
    "--party", type=click.IntRange(1, 10), required=True, help="Whose edits: 1 to 3, or 1 to 10 with --of 10."
)
@click.option("--of", "parties", type=click.Choice(["3", "10"]), default="3", show_default=True, help="Of how many.")
@click.option("--count", type=click.IntRange(min=1), help="Only the first so many.")
def sample_edits(party: int, parties: str, count: int | None) -> None:
    """Prints edits of the bundled model's facts, in CounterFact's format, one JSON object a line.

    No two parties of a deal edit the same subject.

    \b
    Examples:
      collab sample-edits --party 1 > mine.jsonl
      collab sample-edits --party 7 --of 10 --count 12 > mine.jsonl
    """
    from collabedit.common.errors import UsageError
    from collabedit.common.model_folder import find_model
    from collabedit.experiments.bundled import party_files, party_lines

    if party > int(parties):
        raise UsageError(f"--party {party}: there are {parties}", mend="give --of 10 for more parties")
    lines = party_lines(party_files(find_model("atlas"), int(parties))[party - 1], count)
    click.echo("".join(lines), nl=False)
