"""`collab status`: what the server is doing now."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from collabedit.cli.output import print_table
from collabedit.cli.remote import PATIENCE, PHASES, RemoteOptions, open_connection, sees_all
from collabedit.cli.retention import retention_object
from collabedit.common.command import load_settings, options_of, print_json
from collabedit.common.errors import IdentityError

if TYPE_CHECKING:
    from collabedit.client.connection import Connection


@click.command("status")
@options_of(RemoteOptions)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(as_json: bool, **flags: Any) -> None:
    """The federation's settings, the round under way, and how much of what was merged still holds.

    An admin or observer sees too how many conflicts wait for a decision (`collab conflicts`).

    \b
    Examples:
      collab status
      collab status --state /var/lib/collabedit --json
    """
    from collabedit.v1 import federation_pb2 as pb
    from collabedit.v1 import federation_pb2_grpc as rpc

    options = load_settings(RemoteOptions, flags)
    with open_connection(options) as connection:
        stub = rpc.OperationsStub(connection.channel)
        reply = connection.call(stub.GetStatus, pb.GetStatusRequest(), patience=PATIENCE)
        told = {"server": str(connection.address), **_status(reply)}
        told |= {"retention": _retention(connection), "undecided": None}
        if "detection" in told["settings"] and sees_all(options):  # told by the server unless it is off
            told["undecided"] = _undecided(connection)
    if as_json:
        print_json(told)
    else:
        _print(told)


def _retention(connection: Connection) -> dict[str, Any] | None:
    """Of the newest version that clients have told of, and the warning; None: there is none, or the server is older."""
    from collabedit.v1 import federation_pb2 as pb
    from collabedit.v1 import federation_pb2_grpc as rpc

    stub = rpc.OperationsStub(connection.channel)
    try:
        told = retention_object(connection.call(stub.GetRetention, pb.GetRetentionRequest(limit=1), patience=PATIENCE))
    except IdentityError:  # what a server answers that has no such call
        return None
    return {**told["versions"][-1], "warning": told["warning"]} if told["versions"] else None


def _undecided(connection: Connection) -> int:
    """Conflicts that wait for a decision; at most what the server lists at once."""
    from collabedit.v1 import federation_pb2 as pb
    from collabedit.v1 import federation_pb2_grpc as rpc

    stub = rpc.OperationsStub(connection.channel)
    asked = pb.ListConflictsRequest(undecided=True)
    return len(connection.call(stub.ListConflicts, asked, patience=PATIENCE).conflicts)


def _status(reply: Any) -> dict[str, Any]:
    """The reply as `--json` prints it."""
    now = reply.round
    return {
        "clients": reply.clients,
        "version": now.latest_version,
        "restores": reply.restores if reply.HasField("restores") else None,
        "round": {
            "round": now.round,
            "phase": PHASES[now.phase],
            "attempt": now.attempt,
            "layer": now.layer,
            "base_version": now.base_version,
            "members": now.members,
            "contributed": now.contributed,
            "quorum": now.quorum,
            "seconds_left": now.seconds_left or None,
            "reason": now.reason,
        },
        "settings": json.loads(reply.settings_json),
    }


def _print(told: dict[str, Any]) -> None:
    settings, now = told["settings"], told["round"]
    layers = len(settings["edited_weights"])
    rows = [
        ("server", told["server"]),
        ("federation", settings["federation"]),
        ("model", settings["model_name"]),
        ("editor", settings.get("editor", "memit")),
        (
            "merge",
            f"{settings['method']}, {settings['schedule']}, {layers} layers, at least {settings['min_edits']} edits",
        ),
        ("detection", settings.get("detection")),
        ("clients", told["clients"]),
        ("published", _published(told)),
        ("round", f"{now['round']}, {now['phase']}, on version {now['base_version']}"),
        (
            "members",
            f"{now['members']} in, {now['contributed']} have sent layer {now['layer'] + 1}, quorum {now['quorum']}",
        ),
        ("time left", f"{now['seconds_left']} s" if now["seconds_left"] else None),
        ("reason", now["reason"]),
        ("retention", _held(told["retention"])),
        ("undecided", _waiting(told["undecided"])),
    ]
    print_table(["", ""], [row for row in rows if row[1] not in (None, "")])
    if told["retention"] and told["retention"]["warning"]:
        click.echo(f"warning: {told['retention']['warning']}")


def _published(told: dict[str, Any]) -> str:
    if not told["version"]:
        return "nothing yet"
    brought_back = f", rolled back to version {told['restores']}" if told["restores"] is not None else ""
    return f"version {told['version']}{brought_back}"


def _held(retention: dict[str, Any] | None) -> str:
    if retention is None or retention["rate"] is None:
        return ""
    return f"{retention['rate']:.1%} of {retention['tested']} merged edits hold on version {retention['version']}"


def _waiting(undecided: int | None) -> str:
    if not undecided:
        return ""
    return f"{undecided} conflict{'s' * (undecided > 1)}, until an admin decides: collab conflicts --undecided"
