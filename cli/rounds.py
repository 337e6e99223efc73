"""`collab rounds`: the rounds so far, and one round in full."""

from __future__ import annotations

from typing import Any

import click

from collabedit.cli.output import print_table
from collabedit.cli.remote import PATIENCE, RemoteOptions, moment, open_connection, round_object
from collabedit.common.command import load_settings, options_of, print_json
from collabedit.common.errors import UsageError


@click.command("rounds")
@click.argument("action", type=click.Choice(["list", "show"]), default="list")
@click.argument("number", type=click.IntRange(min=1), required=False)
@click.option("--limit", type=click.IntRange(min=0), default=20, show_default=True, help="With list: at most; 0: all.")
@options_of(RemoteOptions)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def rounds(action: str, number: int | None, limit: int, as_json: bool, **flags: Any) -> None:
    """The rounds so far, newest first; or one round: its members, and why one is not in it.

    An admin sees every member, a party itself alone.

    \b
    Examples:
      collab rounds
      collab rounds show 3
      collab rounds list --limit 0 --json
    """
    if (number is None) == (action == "show"):
        raise UsageError(f"collab rounds {action}: {'which round?' if number is None else 'takes no number'}",
                         mend="collab rounds list, or collab rounds show N")  # fmt: skip
    found = _asked(load_settings(RemoteOptions, flags), 0 if number else limit)
    if number is not None:
        _show(number, found, as_json)
    elif as_json:
        print_json({"rounds": found})
    else:
        _list(found)


def _asked(options: RemoteOptions, limit: int) -> list[dict[str, Any]]:
    from collabedit.v1 import federation_pb2 as pb
    from collabedit.v1 import federation_pb2_grpc as rpc

    with open_connection(options) as connection:
        stub = rpc.OperationsStub(connection.channel)
        reply = connection.call(stub.ListRounds, pb.ListRoundsRequest(limit=limit), patience=PATIENCE)
        return [round_object(each) for each in reply.rounds]


def _list(found: list[dict[str, Any]]) -> None:
    rows = [
        [
            each["round"],
            each["phase"],
            sum(member["status"] == "contributed" for member in each["members"]),
            sum(member["edits"] for member in each["members"] if member["status"] == "contributed"),
            each["attempts"],
            moment(each["opened"]),
            moment(each["ended"]),
            each["reason"],
        ]
        for each in found
    ]
    print_table(["round", "phase", "members", "edits", "attempts", "opened", "ended", "reason"], rows)


def _show(number: int, found: list[dict[str, Any]], as_json: bool) -> None:
    one = next((each for each in found if each["round"] == number), None)
    if one is None:
        raise UsageError(f"no round {number}", mend="`collab rounds` lists those that there are")
    if as_json:
        print_json(one)
        return
    facts = [
        ("round", one["round"]),
        ("phase", one["phase"]),
        ("reason", one["reason"]),
        ("published as", f"version {one['version']}" if one["version"] else None),
        ("weights of", f"version {one['restores']}" if one["restores"] is not None else None),
        ("attempts", one["attempts"]),
        ("opened", moment(one["opened"])),
        ("ended", moment(one["ended"])),
        ("weights", "\n".join(one["weights"])),
    ]
    print_table(["", ""], [fact for fact in facts if fact[1]])
    click.echo()
    members = [[each["client"], each["status"], each["edits"], each["reason"]] for each in one["members"]]
    print_table(["member", "status", "edits", "reason"], members)
