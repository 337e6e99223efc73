"""The federation's services over gRPC: requests to calls of the coordinator, views to answers. Protobuf ends here."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence, Set
from functools import wraps
from typing import Any, Final, TypeVar

import grpc
import structlog
from google.protobuf.descriptor import FieldDescriptor

from collabedit.common.errors import CollabEditError, StateError
from collabedit.common.settings import PROTOCOL_VERSIONS, FederationSettings
from collabedit.common.watched import LayerNumbers
from collabedit.server.audit import plain
from collabedit.server.claim_messages import VERDICTS_AT_ONCE, KeyChecks, claims_of, verdict_message
from collabedit.server.claims import MOST_CLAIMS
from collabedit.server.coordinator import Coordinator
from collabedit.server.identity import caller, refuse
from collabedit.server.instances import Instances
from collabedit.server.refusals import (
    BadRequestRefusal,
    FederationRefusal,
    FingerprintRefusal,
    StorageRefusal,
    VersionRefusal,
    no_version,
    status_of,
)
from collabedit.server.retention_watch import RetentionWatch
from collabedit.server.rounds import LayerWeights, Phase, Round, Status
from collabedit.server.store import Store
from collabedit.server.views import View
from collabedit.v1 import federation_pb2 as pb
from collabedit.v1 import federation_pb2_grpc as rpc

LOG = structlog.get_logger()
LARGEST: Final = {True: (1 << 31) - 1, False: (1 << 63) - 1}  # by whether a field has 32 bits
LONGEST_WAIT: Final = 60.0
LONGEST_REASON: Final = 200
UPDATE: Final = "update the client: pip install --upgrade collabedit"
MOST_VERSIONS: Final = 10  # of those a client speaks, shown
PHASES: Final = {phase: f"PHASE_{phase.name}" for phase in Phase}
STATUSES: Final = {status: f"MEMBER_STATUS_{status.name if status.live else 'OUT'}" for status in Status}

Request = TypeVar("Request")
Reply = TypeVar("Reply")
Method = Callable[[Any, Request, Any], Awaitable[Reply]]


def answers(method: Method[Request, Reply]) -> Method[Request, Reply]:
    """Turns what a method raises for the caller into a status and a line; our own mistakes go to the log."""

    @wraps(method)
    async def answering(self: Any, request: Request, context: Any) -> Reply:
        try:
            _check_numbers(request)
            return await method(self, request, context)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as error:
            if isinstance(error, StateError):
                LOG.error("a call failed", method=method.__name__, client=caller(context).client_id, why=error.what)
                error = StorageRefusal()
            status, name = status_of(error)
            if status is None:
                LOG.exception("a call failed", method=method.__name__, client=caller(context).client_id)
                await refuse(context, grpc.StatusCode.INTERNAL, "the server made a mistake; its log says which")
            what = f"{error}; {error.mend}" if isinstance(error, CollabEditError) and error.mend else str(error)
            LOG.info("refused", method=method.__name__, client=caller(context).client_id, why=what)
            await refuse(context, getattr(grpc.StatusCode, status), what, name=name)

    return answering


def _agreed(asked: Sequence[int]) -> int:
    """The newest protocol version that both sides speak. Raises VersionRefusal that says who is to be updated."""
    common = set(asked) & set(PROTOCOL_VERSIONS)
    if common:
        return max(common)
    said, ours = (", ".join(map(str, each[:MOST_VERSIONS])) or "none" for each in (asked, PROTOCOL_VERSIONS))
    older = max(asked, default=0) < max(PROTOCOL_VERSIONS)
    raise VersionRefusal(
        f"no protocol version in common: the server speaks {ours}, the client {said}",
        mend=UPDATE if older else "ask the operator to update the server",
    )


def _check_numbers(request: Any) -> None:
    """Raises BadRequestRefusal for a number that the database cannot hold: its integers have signs."""
    for each, value in request.ListFields():
        if isinstance(value, int) and value > LARGEST[each.cpp_type == FieldDescriptor.CPPTYPE_UINT32]:
            raise BadRequestRefusal(f"{each.name} is {value}; nothing here counts so far")


class FederationService(rpc.FederationServicer):
    """Rounds, as parties see them."""

    def __init__(self, settings: FederationSettings, coordinator: Coordinator, store: Store) -> None:
        self._settings = settings
        self._coordinator = coordinator
        self._store = store
        self._instances = Instances()
        self._keys = KeyChecks(settings.detection, store)
        self._retention = RetentionWatch(store)

    @answers
    async def Join(self, request: pb.JoinRequest, context: Any) -> pb.JoinReply:  # noqa: N802
        """The handshake."""
        version = _agreed(request.protocol_versions)
        self._compare(request)
        who = caller(context)
        if who.role == "client":  # who takes part in no round has no key, and is not to fix one
            await self._keys.compare(who.client_id, request.key_check, told=True)
        self._instances.join(caller(context).client_id, request.instance)
        state = round_state(self._coordinator.view(), caller(context).client_id)
        return pb.JoinReply(protocol_version=version, settings_json=self._settings.told, round=state)

    def _compare(self, request: pb.JoinRequest) -> None:
        settings = self._settings
        if request.federation and request.federation != settings.federation:
            what = f"the client's state belongs to federation {request.federation}, this is {settings.federation}"
            raise FederationRefusal(what, mend="give the client another --state, or the server that it enrolled with")
        if request.model_fingerprint != settings.model_fingerprint:
            what = (
                f"the client's model is {request.model_fingerprint}, the federation edits {settings.model_fingerprint}"
            )
            raise FingerprintRefusal(what, mend=f"get the same files of {settings.model_name}")
        told = request.covariance_fingerprint
        if told and told != settings.covariance_fingerprint:
            what = f"the client's covariance is {told}, the federation's {settings.covariance_fingerprint}"
            raise FingerprintRefusal(what, mend="leave it out: the client then fetches the federation's")

    @answers
    async def Enter(self, request: pb.EnterRequest, context: Any) -> pb.RoundState:  # noqa: N802
        """Takes part in the round under way."""
        client = self._client(request, context)
        settles = self._settings.detection == "pre-merge"
        claims = claims_of(request.claims, request.edits if settles else 0)
        await self._keys.compare(client, request.key_check, told=bool(claims))
        of_batch = claims if settles else None
        view = await self._coordinator.enter(client, request.round, request.base_version, request.edits, of_batch)
        return round_state(view, client)

    @answers
    async def Await(self, request: pb.AwaitRequest, context: Any) -> pb.RoundState:  # noqa: N802
        """The state, once it is news."""
        client = self._client(request, context)
        patience = min(float(request.timeout_seconds), LONGEST_WAIT)
        return round_state(await self._coordinator.wait(client, request.revision, patience), client)

    @answers
    async def Contribute(self, request: pb.ContributeRequest, context: Any) -> pb.RoundState:  # noqa: N802
        """Counts a blob."""
        client = self._client(request, context)
        view = await self._coordinator.contribute(client, request.round, request.attempt, request.layer, request.digest)
        return round_state(view, client)

    @answers
    async def Report(self, request: pb.ReportRequest, context: Any) -> pb.RoundState:  # noqa: N802
        """How the caller's merged edits do."""
        client = self._client(request, context)
        failed = claims_of(request.failed, MOST_CLAIMS if self._settings.detection == "on-failure" else 0)
        require(request.held <= request.tested, f"{request.held} edits hold of {request.tested} that were tested")
        await self._keys.compare(client, request.key_check, told=bool(failed))
        said = (request.version, request.tested, request.held, failed)
        view = await self._coordinator.report(client, request.round, *said)
        await asyncio.to_thread(self._retention.look)
        return round_state(view, client)

    @answers
    async def ListVerdicts(self, request: pb.ListVerdictsRequest, context: Any) -> pb.ListVerdictsReply:  # noqa: N802
        """What was decided about the caller's claims."""
        client = caller(context).client_id
        given = await asyncio.to_thread(self._store.verdicts, client, request.after, VERDICTS_AT_ONCE)
        return pb.ListVerdictsReply(verdicts=map(verdict_message, given))

    @answers
    async def Leave(self, request: pb.LeaveRequest, context: Any) -> pb.RoundState:  # noqa: N802
        """Withdraws."""
        client = self._client(request, context)
        reason = plain(request.reason)[:LONGEST_REASON] or "left"
        return round_state(await self._coordinator.leave(client, request.round, reason), client)

    @answers
    async def GetVersion(self, request: pb.GetVersionRequest, context: Any) -> pb.Version:  # noqa: N802
        """Weights of a version."""
        number = self._coordinator.view().latest_version if request.latest else request.version
        layers = await asyncio.to_thread(self._store.version, number)
        if layers is None:
            raise no_version(number, number in await asyncio.to_thread(self._store.pruned))
        return pb.Version(version=number, layers=(self._with_past(each) for each in layers))

    def _client(self, request: Any, context: Any) -> str:
        """Who calls. Raises SupersededRefusal."""
        client = caller(context).client_id
        self._instances.check(client, request.instance)
        return client

    def _with_past(self, layer: LayerWeights) -> pb.LayerWeights:
        held = bool(layer.past.withheld) and not self._settings.client_needs_prior
        return pb.LayerWeights(
            weight=layer.weight, digest=layer.digest, kkt_digests=layer.past.released, kkt_withheld=held
        )


def layer_weights(layer: LayerWeights) -> pb.LayerWeights:
    """One layer's new weights."""
    return pb.LayerWeights(weight=layer.weight, digest=layer.digest)


def round_state(view: View, client: str) -> pb.RoundState:
    """A view as one client sees it."""
    round_ = view.round
    member = round_.member(client)
    left = 0 if view.left is None else max(1, math.ceil(view.left))
    return pb.RoundState(
        round=round_.number,
        phase=PHASES[round_.phase],
        attempt=round_.attempt,
        layer=round_.layer,
        revision=view.revision,
        base_version=round_.base_version,
        merged=map(layer_weights, round_.merged),
        member=STATUSES[member.status] if member else "MEMBER_STATUS_ABSENT",
        member_reason=member.reason if member else "",
        members=len(round_.live),
        contributed=len(round_.contributed),
        quorum=round_.quorum,
        seconds_left=left,
        reason=round_.reason,
        latest_version=view.latest_version,
        settled=view.settled,
        newest_verdict=view.verdicts.get(client, 0),
    )


def round_record(round_: Round, pruned: Set[int] = frozenset(), *, members_of: str | None) -> pb.RoundRecord:
    """A round for the list of rounds; pruned: versions that are; members_of: the one client shown, None for all."""
    shown = [each for each in round_.members if members_of in (None, each.client)]
    return pb.RoundRecord(
        round=round_.number,
        phase=PHASES[round_.phase],
        attempts=round_.attempt + 1,
        opened_ms=int(round_.opened * 1000),
        ended_ms=int((round_.ended or 0) * 1000),
        reason=round_.reason,
        merged=map(layer_weights, round_.merged),
        members=(
            pb.Member(client_id=each.client, status=STATUSES[each.status], reason=each.reason, edits=each.edits)
            for each in shown
        ),
        version=round_.version or 0,
        restores=round_.restores,
        pruned=round_.number in pruned,
    )


def layer_numbers(numbers: LayerNumbers, *, contributions_of: str | None) -> pb.LayerNumbers:
    """A layer's numbers; contributions_of: the one client whose are shown, None for all."""
    shown = [each for each in numbers.contributions if contributions_of in (None, each.client)]
    return pb.LayerNumbers(
        **numbers.model_dump(exclude={"contributions"}),
        contributions=(
            pb.ContributionNumbers(client_id=each.client, **each.model_dump(exclude={"client", "delta_norm"}))
            for each in shown
        ),
    )


def require(holds: bool, what: str) -> None:
    """Raises BadRequestRefusal."""
    if not holds:
        raise BadRequestRefusal(what)
