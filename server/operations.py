"""Operating the federation over gRPC: what is going on, certificates, conflicts, the audit log, ending rounds.

Who may make which call is `collabedit.server.permissions`' to say.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from collabedit.common import pki
from collabedit.common.errors import IdentityError
from collabedit.common.settings import FederationSettings
from collabedit.server.audit import Row, entry, plain
from collabedit.server.claim_messages import check_key_check
from collabedit.server.conflict_messages import check_slot, conflict_message, retention_message
from collabedit.server.coordinator import Coordinator
from collabedit.server.enrolment import Registrar
from collabedit.server.identity import Caller, caller
from collabedit.server.refusals import BadRequestRefusal, NotFoundRefusal
from collabedit.server.retention import LAST, fall
from collabedit.server.services import LOG, LONGEST_REASON, answers, layer_numbers, round_record, round_state
from collabedit.server.store import Store
from collabedit.v1 import federation_pb2 as pb
from collabedit.v1 import federation_pb2_grpc as rpc

MOST_USES: Final = 10_000
LONGEST_MINUTES: Final = 60 * 24 * 365

MOST_ROWS: Final = 1000
MOST_CONFLICTS: Final = 1000
SEES_ALL: Final = ("admin", "observer")
SERIAL: Final = re.compile(r"[1-9][0-9]{0,63}")

# (role, uses, valid minutes, who asks) -> the token and the command that a party runs; blocks.
IssueToken = Callable[[str, int, int, Caller], tuple[str, str]]


class OperationsService(rpc.OperationsServicer):
    """Admins' calls are let through by the gate alone (`collabedit.server.identity`).

    issue: None where nobody enrols here. registrar: renews certificates; None in plaintext, where there are none.
    """

    def __init__(
        self,
        settings: FederationSettings,
        coordinator: Coordinator,
        store: Store,
        issue: IssueToken | None,
        registrar: Registrar | None = None,
    ) -> None:
        self._settings = settings
        self._coordinator = coordinator
        self._store = store
        self._issue = issue
        self._registrar = registrar

    @answers
    async def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.GetStatusReply:  # noqa: N802
        """The federation now."""
        enrolled = await asyncio.to_thread(self._store.clients)
        clients = sum(not each.revoked and each.role == "client" for each in enrolled)
        view = self._coordinator.view()
        return pb.GetStatusReply(
            settings_json=self._settings.told,
            round=round_state(view, caller(context).client_id),
            clients=clients,
            restores=view.restores,
        )

    @answers
    async def ListRounds(self, request: pb.ListRoundsRequest, context: Any) -> pb.ListRoundsReply:  # noqa: N802
        """Rounds, newest first; a client sees of their members itself alone."""
        who = caller(context)
        recorded = await asyncio.to_thread(self._store.rounds, request.limit)
        pruned = await asyncio.to_thread(self._store.pruned)
        shown = None if who.role in SEES_ALL else who.client_id
        return pb.ListRoundsReply(rounds=(round_record(each.round, pruned, members_of=shown) for each in recorded))

    @answers
    async def GetRound(self, request: pb.GetRoundRequest, context: Any) -> pb.RoundRecord:  # noqa: N802
        """One round with its numbers; a client sees of members and contributions its own."""
        who = caller(context)
        found = await asyncio.to_thread(self._store.round, request.round)
        if found is None:
            raise NotFoundRefusal(f"no round {request.round}", mend="`collab rounds` lists those that there are")
        shown = None if who.role in SEES_ALL else who.client_id
        record = round_record(found, await asyncio.to_thread(self._store.pruned), members_of=shown)
        record.numbers.extend(layer_numbers(each, contributions_of=shown) for each in found.numbers)
        return record

    @answers
    async def IssueToken(self, request: pb.IssueTokenRequest, context: Any) -> pb.IssueTokenReply:  # noqa: N802
        """A token and the command that a party runs with it."""
        if self._issue is None:
            raise BadRequestRefusal("a plaintext server enrols nobody", mend="start it without --insecure")
        role, uses, minutes = request.role or "client", request.uses or 1, request.valid_minutes or 60 * 24
        if role not in pki.ROLES:
            raise BadRequestRefusal(f'no role "{role[:16]}"', mend=", ".join(pki.ROLES))
        if uses > MOST_USES or minutes > LONGEST_MINUTES:
            raise BadRequestRefusal(f"a token of {uses} uses for {minutes} minutes", mend="ask for less of both")
        token, command = await asyncio.to_thread(self._issue, role, uses, minutes, caller(context))
        return pb.IssueTokenReply(token=token, command=command)

    @answers
    async def Revoke(self, request: pb.RevokeRequest, context: Any) -> pb.RevokeReply:  # noqa: N802
        """Revokes a name or one certificate, and takes the client out of the round under way."""
        if bool(request.client_id) == bool(request.serial):
            raise BadRequestRefusal("a client id or a serial number, one of the two")
        client = request.client_id
        if client:
            known = await asyncio.to_thread(self._revoke, client, caller(context))
        else:
            found = await asyncio.to_thread(self._revoke_serial, request.serial, caller(context))
            client, known = found or "", found is not None
        if client:
            await self._coordinator.drop(client, "revoked")
        return pb.RevokeReply(known=known)

    def _revoke(self, client: str, by: Caller) -> bool:
        if not pki.CLIENT_ID.fullmatch(client):
            raise BadRequestRefusal(f'"{client[:64]}" is no client id')
        now = time.time()
        return self._store.revoke(client, now, entry(now, by.client_id, by.role, "revoke", f"client {client}"))

    def _revoke_serial(self, serial: str, by: Caller) -> str | None:
        if not SERIAL.fullmatch(serial):
            raise BadRequestRefusal(f'"{serial[:64]}" is no serial number', mend="give it in decimal digits")
        now = time.time()
        noted = entry(now, by.client_id, by.role, "revoke", f"certificate {serial}")
        return self._store.revoke_serial(serial, now, noted)

    @answers
    async def Renew(self, request: pb.RenewRequest, context: Any) -> pb.RenewReply:  # noqa: N802
        """A new certificate for the caller's name, role and key."""
        if self._registrar is None:
            raise BadRequestRefusal("a plaintext server has no certificates", mend="start it without --insecure")
        try:
            wanted = pki.check_request(request.certificate_request_pem)
        except IdentityError as error:
            raise BadRequestRefusal(error.what, mend=error.mend) from error
        signed = await asyncio.to_thread(self._registrar.renew, caller(context), wanted)
        return pb.RenewReply(certificate_pem=signed, ca_certificate_pem=self._registrar.ca_pem)

    @answers
    async def ListAudit(self, request: pb.ListAuditRequest, context: Any) -> pb.ListAuditReply:  # noqa: N802
        """Rows of the audit log."""
        limit = min(request.limit or MOST_ROWS, MOST_ROWS)
        rows = await asyncio.to_thread(self._store.audit, request.after, limit)
        head = await asyncio.to_thread(self._store.audit_head)
        return pb.ListAuditReply(rows=map(_audit_row, rows), last=head.sequence)

    @answers
    async def AbortRound(self, request: pb.AbortRoundRequest, context: Any) -> pb.RoundState:  # noqa: N802
        """Ends a round."""
        reason = plain(request.reason)[:LONGEST_REASON] or "aborted by an admin"
        return round_state(await self._coordinator.abort(reason, request.round), caller(context).client_id)

    @answers
    async def RollBack(self, request: pb.RollBackRequest, context: Any) -> pb.RollBackReply:  # noqa: N802
        """An earlier version's weights as a new version."""
        who = caller(context).client_id
        said = plain(request.reason)[:LONGEST_REASON]
        reason = f"rolled back to version {request.to} by {who}" + (f": {said}" if said else "")
        version = await self._coordinator.roll_back(request.to, request.expected_version, reason)
        LOG.info("rolled back", to=request.to, version=version, by=who, reason=said)
        return pb.RollBackReply(version=version)

    @answers
    async def ListConflicts(self, request: pb.ListConflictsRequest, context: Any) -> pb.ListConflictsReply:  # noqa: N802
        """Where parties contradict each other, newest first."""
        limit = min(request.limit or MOST_CONFLICTS, MOST_CONFLICTS)
        found = await asyncio.to_thread(partial(self._store.conflicts, undecided=request.undecided, limit=limit))
        return pb.ListConflictsReply(conflicts=map(conflict_message, found))

    @answers
    async def DecideConflict(self, request: pb.DecideConflictRequest, context: Any) -> pb.ListConflictsReply:  # noqa: N802
        """One party's edit of a slot is kept, and the others' are withdrawn."""
        found = await self._coordinator.decide(check_slot(request.slot), request.keep)
        await self._note(caller(context), "decide", f"slot {found.slot.hex()} keep {request.keep}")
        return pb.ListConflictsReply(conflicts=[conflict_message(found)])

    @answers
    async def SetKeyCheck(self, request: pb.SetKeyCheckRequest, context: Any) -> pb.SetKeyCheckReply:  # noqa: N802
        """Another federation key counts from now on."""
        check = check_key_check(request.key_check)
        await asyncio.to_thread(partial(self._store.pin_key_check, check, replace=True))
        await self._note(caller(context), "announce key", check)
        return pb.SetKeyCheckReply(key_check=check)

    async def _note(self, who: Caller, what: str, object_: str) -> None:
        LOG.info(what, object=object_, by=who.client_id)
        await asyncio.to_thread(self._store.note, [entry(time.time(), who.client_id, who.role, what, object_)])

    @answers
    async def GetRetention(self, request: pb.GetRetentionRequest, context: Any) -> pb.GetRetentionReply:  # noqa: N802
        """How much of what was merged holds, version by version."""
        told = await asyncio.to_thread(self._store.retention, max(request.limit, LAST) + 2 if request.limit else 0)
        found = fall(told)
        shown = told[-request.limit :] if request.limit else told
        return pb.GetRetentionReply(versions=map(retention_message, shown), warning=found.line if found else "")


def _audit_row(row: Row) -> pb.AuditRow:
    return pb.AuditRow(sequence=row.sequence, **vars(row.entry), previous=row.previous, hash=row.hash)
