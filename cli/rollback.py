"""`collab rollback`: an earlier version's weights become the newest version."""

from __future__ import annotations

from typing import Any

import click
from pydantic import Field

from collabedit.cli.remote import PATIENCE, RemoteOptions, open_connection
from collabedit.common.command import load_settings, options_of, print_json


class RollbackOptions(RemoteOptions):
    """The flags of `collab rollback`."""

    to: int = Field(ge=0, description="version to go back to; 0: the base model")
    expect: int | None = Field(
        default=None, ge=0, description="refuse unless this is the newest version [default: whichever is]"
    )
    reason: str = Field(default="", max_length=200, description="why: kept with the round and shown to all parties")


@click.command("rollback")
@options_of(RollbackOptions)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def rollback(as_json: bool, **flags: Any) -> None:
    """Publishes the weights of an earlier version, and the covariance that had accumulated by then, as a new version.

    Nothing is taken out of the history, and versions only grow: the rollback can be rolled back. It ends the round
    under way, whose members keep their edits for the next one. Clients follow as they do after any round. An admin's
    call: on the server's host, --state is the server's.

    \b
    Examples:
      collab rollback --to 3
      collab rollback --to 0 --expect 5 --reason "round 4 merged a wrong file" --json
    """
    options = load_settings(RollbackOptions, flags)
    before, version = _rolled_back(options)
    if as_json:
        print_json({"version": version, "restores": options.to, "before": before})
    else:
        click.echo(f"version {version} is the newest: the weights of version {options.to} instead of {before}'s")


def _rolled_back(options: RollbackOptions) -> tuple[int, int]:
    """The newest version before, and after. Raises RoundError where the server refuses."""
    from collabedit.v1 import federation_pb2 as pb
    from collabedit.v1 import federation_pb2_grpc as rpc

    with open_connection(options) as connection:
        stub = rpc.OperationsStub(connection.channel)
        before = options.expect
        if before is None:
            status = connection.call(stub.GetStatus, pb.GetStatusRequest(), patience=PATIENCE)
            before = int(status.round.latest_version)
        request = pb.RollBackRequest(to=options.to, expected_version=before, reason=options.reason)
        reply = connection.call(stub.RollBack, request, patience=PATIENCE)
        return before, int(reply.version)
