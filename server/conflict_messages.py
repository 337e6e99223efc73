"""Conflicts and retention as messages, for those who operate the federation."""

from __future__ import annotations

from collabedit.server.claim_messages import KINDS, NAME_BYTES
from collabedit.server.refusals import BadRequestRefusal
from collabedit.server.store import Conflict, Retention
from collabedit.v1 import federation_pb2 as pb


def conflict_message(conflict: Conflict) -> pb.Conflict:
    """A conflict, with all its parties: for admins and observers. A party without a verdict goes on as it was."""
    claimants = (
        pb.Claimant(client_id=each.client, fact=each.fact, kind=KINDS[each.kind] if each.kind else None)
        for each in conflict.claimants
    )
    return pb.Conflict(
        slot=conflict.slot, round=conflict.round, claimants=claimants, kept=conflict.kept, policy=conflict.policy
    )


def retention_message(told: Retention) -> pb.Retention:
    """What clients have told of one version, added up."""
    return pb.Retention(version=told.version, clients=told.clients, tested=told.tested, held=told.held)


def check_slot(slot: bytes) -> bytes:
    """Returns it; raises BadRequestRefusal for what is no blinded name."""
    if len(slot) != NAME_BYTES:
        raise BadRequestRefusal(f"a slot of {len(slot)} bytes", mend=f"a blinded name has {NAME_BYTES}")
    return slot
