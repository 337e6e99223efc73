"""`collab-client`: one party's daemon."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from collabedit.client.config import SERVER_VARIABLE, ClientConfig
from collabedit.client.status import status
from collabedit.common.command import entry_point, load_settings, options_of, print_json
from collabedit.common.errors import ExitCode, UsageError

EXAMPLES = """\b
Examples:
  collab-client --edits mine.jsonl                     join, merge your edits, follow the file for more
  collab-client --edits mine.jsonl --once --json       end when they are merged; one JSON object says how they took
  collab-client --config client.toml                   the same settings from a file
  collab-client --edits mine.jsonl --insecure --client-id me --server localhost:50051
  collab-client status                                 what became of every edit, also while the client runs

\b
Exit codes: 0 no edit waits (or stopped by SIGTERM) · 2 a flag · 3 bad lines · 4 the model · 5 a file · 6 a fingerprint
or federation that differs · 7 no server · 8 no or a refused certificate or federation key · 10 the state folder ·
11 the round, or too few edits · 130 interrupted"""


class Terminated(BaseException):
    """SIGTERM came; like KeyboardInterrupt, nothing may swallow it."""


@click.group(
    invoke_without_command=True,
    subcommand_metavar="[COMMAND]",
    epilog=EXAMPLES,
    context_settings={"max_content_width": 110},
)
@options_of(ClientConfig)
@click.option("--config", "toml", type=click.Path(path_type=Path), help="TOML file with these settings; a flag wins")
@click.option("--json", "as_json", is_flag=True, help="with --once: one JSON object on standard output at the end")
@click.pass_context
def command(ctx: click.Context, /, toml: Path | None, as_json: bool, **flags: Any) -> None:
    """One party of a federation: writes your edits into the shared model without showing them to anyone.

    Reads your edits, joins the federation, takes part in its rounds, and scores your edits on the new weights. Kill it
    at any instant: the same command goes on where it was.
    """
    if ctx.invoked_subcommand is not None:
        _demand_no_flags(ctx)
        return
    if flags.get("server") is None:
        flags["server"] = os.environ.get(SERVER_VARIABLE) or None
    config = load_settings(ClientConfig, flags, toml=toml)
    if as_json and not config.once:
        raise UsageError("--json goes with --once: a daemon never ends", mend="--report FILE holds the last result")
    with _terminable():
        try:
            result = _run(config)
        except Terminated:
            click.echo("stopped; the same command goes on from here", err=True)
            sys.exit(ExitCode.INTERRUPTED if config.once else ExitCode.OK)
        except KeyboardInterrupt:
            click.echo("interrupted; the same command goes on from here", err=True)
            sys.exit(ExitCode.INTERRUPTED)
    if as_json:
        print_json(result)


def _demand_no_flags(ctx: click.Context) -> None:
    """Raises UsageError for a flag before the command's name, where it would have no effect."""
    for each in ctx.command.params:
        if each.name and ctx.get_parameter_source(each.name) is ParameterSource.COMMANDLINE:
            raise UsageError(
                f"{each.opts[0]} stands before {ctx.invoked_subcommand}",
                mend=f"write it behind: `collab-client {ctx.invoked_subcommand} --help` lists what it takes",
            )


def _run(config: ClientConfig) -> dict[str, Any]:
    """Imports what is heavy and runs the client; all that it says goes to standard error."""
    import structlog

    from collabedit.client.session import run_client
    from collabedit.client.voice import Voice

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    return run_client(config, Voice())


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the work as Ctrl-C does: by an exception in the main thread."""

    def stop(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


command.add_command(status)
main = entry_point(command)
