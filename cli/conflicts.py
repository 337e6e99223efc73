"""`collab conflicts`: where parties' edits contradict each other, and an admin's decision about one."""

from __future__ import annotations

from typing import Any

import click

from collabedit.cli.output import print_table
from collabedit.cli.remote import PATIENCE, RemoteOptions, open_connection
from collabedit.common.command import load_settings, options_of, print_json
from collabedit.common.errors import UsageError

KINDS = ("", "keep", "yield", "duplicate", "undecided", "overwritten")
SHORT = 12  # hexadecimal digits of a name that a table shows: enough to tell some thousand conflicts apart


@click.command("conflicts")
@click.argument("action", type=click.Choice(["list", "decide"]), default="list")
@click.argument("slot", required=False)
@click.option("--undecided", is_flag=True, help="With list: only those that wait for a decision.")
@click.option("--limit", type=click.IntRange(0, 1000), default=20, show_default=True, help="With list; 0: 1000.")
@click.option("--keep", metavar="CLIENT", help="With decide: whose edit is kept; the others' are withdrawn.")
@options_of(RemoteOptions)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def conflicts(
    action: str, slot: str | None, undecided: bool, limit: int, keep: str | None, as_json: bool, **flags: Any
) -> None:
    """Where parties' edits contradict each other, newest first: who claims what, blinded, and what was decided.

    What a conflict is about nobody can tell but its parties: each sees its own edit of it in `collab-client status`.

    decide keeps CLIENT's edit of SLOT and withdraws the others'. With --conflict-policy manual nothing of a slot is
    merged before, and the decision holds in later rounds too; with another policy it changes this conflict alone. SLOT:
    as many of its first hexadecimal digits as no other conflict has. Said again it changes nothing; another CLIENT
    replaces the decision. For observers and admins; deciding, for admins.

    \b
    Examples:
      collab conflicts
      collab conflicts --undecided --json
      collab conflicts decide 3fa29c --keep alice
    """
    if action == "list" and (slot or keep):
        raise UsageError("collab conflicts list takes no SLOT and no --keep", mend="collab conflicts decide SLOT …")
    if action == "decide" and not (slot and keep):
        raise UsageError(
            "collab conflicts decide: which, and for whom?", mend="collab conflicts decide SLOT --keep WHO"
        )
    options = load_settings(RemoteOptions, flags)
    if slot and keep:
        one = _decided(options, slot.lower(), keep)
        print_json(one) if as_json else click.echo(f"{one['slot'][:SHORT]}: the edit of {one['kept']} is kept")
        return
    found = _listed(options, undecided, limit)
    if as_json:
        print_json({"conflicts": found})
    elif found:
        _print(found)
    else:
        click.echo("no conflict waits for a decision" if undecided else "no conflict was found so far")


def conflict_object(conflict: Any) -> dict[str, Any]:
    """A Conflict as `--json` prints it. `kept` is None while it is undecided, a `verdict` of who was there before."""
    return {
        "slot": conflict.slot.hex(),
        "round": conflict.round,
        "kept": conflict.kept or None,
        "policy": conflict.policy,
        "claimants": [
            {"client": each.client_id, "fact": each.fact.hex(), "verdict": KINDS[each.kind] or None}
            for each in conflict.claimants
        ],
    }


def _listed(options: RemoteOptions, undecided: bool, limit: int) -> list[dict[str, Any]]:
    from collabedit.v1 import federation_pb2 as pb
    from collabedit.v1 import federation_pb2_grpc as rpc

    with open_connection(options) as connection:
        stub = rpc.OperationsStub(connection.channel)
        request = pb.ListConflictsRequest(undecided=undecided, limit=limit)
        reply = connection.call(stub.ListConflicts, request, patience=PATIENCE)
        return [conflict_object(each) for each in reply.conflicts]


def _decided(options: RemoteOptions, slot: str, keep: str) -> dict[str, Any]:
    """The conflict as it is after the decision. Raises UsageError where SLOT names none, or several."""
    from collabedit.v1 import federation_pb2 as pb
    from collabedit.v1 import federation_pb2_grpc as rpc

    with open_connection(options) as connection:
        stub = rpc.OperationsStub(connection.channel)
        asked = (pb.ListConflictsRequest(undecided=each) for each in (True, False))  # each: the newest ones alone
        found = [connection.call(stub.ListConflicts, each, patience=PATIENCE).conflicts for each in asked]
        slots = [conflict.slot for conflicts in found for conflict in conflicts]
        request = pb.DecideConflictRequest(slot=_only(slots, slot), keep=keep)
        reply = connection.call(stub.DecideConflict, request, patience=PATIENCE)
        return conflict_object(reply.conflicts[0])


def _only(slots: list[bytes], beginning: str) -> bytes:
    """The one slot whose hexadecimal digits begin so. Raises UsageError where there is none, or several."""
    named = sorted({each for each in slots if each.hex().startswith(beginning)})
    if not named:
        raise UsageError(f"no conflict whose slot begins with {beginning}", mend="`collab conflicts` lists them")
    if len(named) > 1:
        said = ", ".join(each.hex()[:SHORT] for each in named[:3])
        raise UsageError(f"{len(named)} conflicts begin with {beginning}: {said}", mend="give more of its digits")
    return named[0]


def _print(found: list[dict[str, Any]]) -> None:
    rows = [
        [
            each["slot"][:SHORT],
            each["round"],
            "undecided" if each["kept"] is None else each["kept"],
            each["policy"],
            "\n".join(map(_claim, each["claimants"])),
        ]
        for each in found
    ]
    print_table(["slot", "round", "kept", "policy", "claims, in receipt order"], rows)


def _claim(who: dict[str, Any]) -> str:
    return f"{who['client']}: {who['fact'][:SHORT]} {who['verdict'] or 'goes on'}"
