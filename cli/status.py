"""`collab status`: what the server is doing now."""

from __future__ import annotations

import json
from typing import Any

import click

from collabedit.cli.output import print_table
from collabedit.cli.remote import PATIENCE, PHASES, RemoteOptions, open_connection
from collabedit.common.command import load_settings, options_of, print_json


@click.command("status")
@options_of(RemoteOptions)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(as_json: bool, **flags: Any) -> None:
    """The federation's settings and the round under way.

    \b
    Examples:
      collab status
      collab status --state /var/lib/collabedit --json
    """
    from collabedit.v1 import federation_pb2 as pb
    from collabedit.v1 import federation_pb2_grpc as rpc

    with open_connection(load_settings(RemoteOptions, flags)) as connection:
        stub = rpc.OperationsStub(connection.channel)
        reply = connection.call(stub.GetStatus, pb.GetStatusRequest(), patience=PATIENCE)
        told = {"server": str(connection.address), **_status(reply)}
    if as_json:
        print_json(told)
    else:
        _print(told)


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
        ("clients", told["clients"]),
        ("published", _published(told)),
        ("round", f"{now['round']}, {now['phase']}, on version {now['base_version']}"),
        (
            "members",
            f"{now['members']} in, {now['contributed']} have sent layer {now['layer'] + 1}, quorum {now['quorum']}",
        ),
        ("time left", f"{now['seconds_left']} s" if now["seconds_left"] else None),
        ("reason", now["reason"]),
    ]
    print_table(["", ""], [row for row in rows if row[1] not in (None, "")])


def _published(told: dict[str, Any]) -> str:
    if not told["version"]:
        return "nothing yet"
    brought_back = f", rolled back to version {told['restores']}" if told["restores"] is not None else ""
    return f"version {told['version']}{brought_back}"
