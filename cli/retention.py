"""`collab retention`: how much of what was merged still holds, version by version."""

from __future__ import annotations

from typing import Any

import click

from collabedit.cli.output import print_table
from collabedit.cli.remote import PATIENCE, RemoteOptions, open_connection
from collabedit.common.command import load_settings, options_of, print_json


@click.command("retention")
@click.option("--limit", type=click.IntRange(min=0), default=20, show_default=True, help="Newest versions; 0: all.")
@options_of(RemoteOptions)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def retention(limit: int, as_json: bool, **flags: Any) -> None:
    """How many of the merged edits that clients tested on each version still hold, and a warning where that falls.

    Every client tests its own edits on each version, all or a sample, and tells two counts.

    \b
    Examples:
      collab retention
      collab retention --limit 0 --json
    """
    from collabedit.v1 import federation_pb2 as pb
    from collabedit.v1 import federation_pb2_grpc as rpc

    with open_connection(load_settings(RemoteOptions, flags)) as connection:
        stub = rpc.OperationsStub(connection.channel)
        told = retention_object(
            connection.call(stub.GetRetention, pb.GetRetentionRequest(limit=limit), patience=PATIENCE)
        )
    if as_json:
        print_json(told)
        return
    if not told["versions"]:
        click.echo("nothing has been told so far: clients test what earlier rounds merged, on each new version")
        return
    columns = ("version", "clients", "tested", "held", "rate")
    print_table(columns, [[each[name] for name in columns] for each in told["versions"]])
    if told["warning"]:
        click.echo(f"warning: {told['warning']}")


def retention_object(reply: Any) -> dict[str, Any]:
    """The answer as `--json` prints it; rates are fractions of 1, None where nothing was tested."""
    return {
        "versions": [
            {
                "version": each.version,
                "clients": each.clients,
                "tested": each.tested,
                "held": each.held,
                "rate": each.held / each.tested if each.tested else None,
            }
            for each in reply.versions
        ],
        "warning": reply.warning or None,
    }
