"""The umbrella command `collab`: one table of subcommands, each imported only when it runs."""

from __future__ import annotations

from importlib import import_module
from typing import Final

import click

from collabedit.common.command import entry_point

# name -> (module, attribute, the line that `collab --help` shows), in the order of the list.
COMMANDS: Final = {
    "demo": ("collabedit.cli.demo", "demo", "A server and three clients, really, on the bundled model."),
    "edit": ("collabedit.cli.edit", "edit", "One party alone: edits in, a contribution file out."),
    "merge": ("collabedit.cli.merge", "merge", "Contribution files in, merged weights out; no server."),
    "eval": ("collabedit.cli.evaluate", "evaluate", "Metrics of a model on a file of edits."),
    "export": ("collabedit.cli.export", "export", "A version as a Hugging Face folder, a patch or a PEFT adapter."),
    "covariance": ("collabedit.cli.covariance", "covariance", "C0 of a model over a text, all layers in one pass."),
    "layers": ("collabedit.cli.layers", "layers", "Causal tracing: where facts are kept, and the layers to edit."),
    "status": ("collabedit.cli.status", "status", "What the server is doing now."),
    "rounds": ("collabedit.cli.rounds", "rounds", "The rounds so far, and one round in full."),
    "conflicts": ("collabedit.cli.conflicts", "conflicts", "Where parties' edits contradict each other; decide one."),
    "retention": ("collabedit.cli.retention", "retention", "How much of what was merged still holds."),
    "rollback": ("collabedit.cli.rollback", "rollback", "An earlier version's weights as the newest version."),
    "sample-edits": ("collabedit.cli.sample", "sample_edits", "Prints bundled edits to try things with."),
    "experiment": ("collabedit.cli.experiment", "experiment", "The paper's tables and figures."),
    "backup": ("collabedit.cli.state_copy", "backup", "A server's state, copied whole while the server runs."),
    "restore": ("collabedit.cli.state_copy", "restore", "A server's state folder, made of a backup."),
    "doctor": ("collabedit.cli.state_check", "doctor", "What is wrong with a state folder."),
    "audit": ("collabedit.cli.audit", "audit", "The log of who did what: read it, check it."),
    "pki": ("collabedit.cli.pki", "pki", "Certificates: enrol, renew, issue tokens, revoke."),
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and one-line helps from a table, and imports a command to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the table's order: what a newcomer needs comes first."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None where the table has no such name."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in `--help`, from the table alone: nothing is imported."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"collabedit {version('collabedit')}")
        ctx.exit()


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="The version."
)
def collab() -> None:
    """Correct the facts in one shared language model together, without sharing the edits.

    \b
    Try it:
      collab demo
      collab sample-edits --party 1 > mine.jsonl
      collab edit --model atlas --edits mine.jsonl --out mine.safetensors
    """


main = entry_point(collab)
