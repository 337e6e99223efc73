"""The server's process: its parts put together, its ports opened, until it is told to stop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from collabedit.common.errors import CollabEditError
from collabedit.server.addresses import ListenAddress, in_use, with_port
from collabedit.server.audit import SERVER
from collabedit.server.audit_recorder import Recorder, recording
from collabedit.server.blob_service import BlobService, add_blobs
from collabedit.server.blobs import BlobStore
from collabedit.server.claims import Rule
from collabedit.server.config import ServerConfig
from collabedit.server.coordinator import Coordinator
from collabedit.server.federation import Federation
from collabedit.server.handshakes import CoreLog
from collabedit.server.identity import Caller, Gate
from collabedit.server.keeper import Plan
from collabedit.server.listening import ENROLMENT_OPTIONS, OPTIONS
from collabedit.server.merging import Merger
from collabedit.server.norm_history import NormHistory
from collabedit.server.operations import OperationsService
from collabedit.server.policy import Policy
from collabedit.server.quota_gate import QuotaGate
from collabedit.server.quotas import Limits, Quotas, largest_contribution, usual_bytes_per_hour
from collabedit.server.services import FederationService
from collabedit.server.state_folder import ROOTS, Running, forget_running, note_running
from collabedit.server.stopping import CLOSING, StopGate, StopSignal, leave_within
from collabedit.server.store import Store
from collabedit.server.stranger_quotas import StrangerGate, StrangerQuotas
from collabedit.server.trust import FIRST_TOKEN_MINUTES, Trust
from collabedit.v1 import federation_pb2_grpc as rpc

LOG = structlog.get_logger()


@dataclass(frozen=True)
class Parts:
    """What the process is made of, ready. trust: None in plaintext. core: gRPC's own log, where it is read."""

    config: ServerConfig
    federation: Federation
    store: Store
    blobs: BlobStore
    listen: ListenAddress
    trust: Trust | None
    core: CoreLog | None = None


@dataclass(frozen=True)
class Ports:
    """The ports that are bound, with their servers; enrolment has none in plaintext. gate: closed when they stop."""

    gate: StopGate
    services: grpc.aio.Server
    port: int
    enrolment: grpc.aio.Server | None = None
    enrol_port: int = 0

    async def start(self) -> None:
        """Begins to answer."""
        await self.services.start()
        if self.enrolment:
            await self.enrolment.start()

    async def stop(self, grace: float) -> None:
        """Lets calls under way end, for `grace` seconds, and cuts the others off."""
        await asyncio.gather(*(each.stop(grace) for each in (self.services, self.enrolment) if each))


async def serve(parts: Parts, announce: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT, and then for as long as what is under way needs, `drain` seconds at most.

    announce: told lines for people once it serves. A second signal ends the process at once.
    """
    stop = StopSignal()
    coordinator, recorder = _coordinator(parts), Recorder(parts.store.note)
    ports = _open_ports(parts, coordinator, recorder)
    await coordinator.start()
    await ports.start()
    ticking = asyncio.create_task(coordinator.run())
    if parts.core:
        parts.core.tell(recorder.handshake)
    noting = asyncio.create_task(recording(recorder))
    _tell(parts, ports, announce)
    await stop.wait()
    leave_within(parts.config.drain + CLOSING)
    ticking.cancel()
    await _drain(ports, coordinator, parts.config.drain)
    noting.cancel()
    await noting
    forget_running(parts.config.state)
    await coordinator.stop()


async def _drain(ports: Ports, coordinator: Coordinator, seconds: float) -> None:
    """Takes no more calls; gives those under way, and a merge, that long."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    LOG.info("stopping", within=seconds)
    ports.gate.closed = True
    if not await coordinator.drain(seconds):
        LOG.warning("the merge under way is given up; the next start does it again")
    await ports.stop(max(0.0, ends - loop.time()))


def _tell(parts: Parts, ports: Ports, announce: Callable[[str], None]) -> None:
    listen = f"{parts.listen.host}:{ports.port}"
    if parts.trust is None:
        note_running(parts.config.state, Running(listen, "", os.getpid()))
        announce(f"listening on {listen} (plaintext)")
        return
    trust = parts.trust
    enrol = f"{trust.enrol.host}:{ports.enrol_port}"
    trust.note_admin(ports.port)
    note_running(parts.config.state, Running(listen, enrol, os.getpid()))
    announce(f"listening on {listen}, enrolment on {enrol}")
    if trust.awaits_parties:
        _, command = trust.issue("client", 1, FIRST_TOKEN_MINUTES, by=(SERVER, SERVER), port=ports.enrol_port)
        announce(f"a party enrols with (once, within {FIRST_TOKEN_MINUTES // 60} hours):\n  {command}")


def _device(config: ServerConfig) -> str:
    """Where to merge; a device asked for by name is looked for now, and not in the middle of a round."""
    if config.device not in ("auto", "cpu"):
        from collabedit.common.merge import chosen_device

        chosen_device(config.device, [])
    return config.device


def _coordinator(parts: Parts) -> Coordinator:
    config, federation = parts.config, parts.federation
    waits = (config.entry_window, config.round_deadline, config.layer_deadline, config.liveness)
    policy = Policy(*waits, _rule(config, parts.store, certified=parts.trust is not None))
    if federation.settings.detection != "off":
        LOG.info("conflicts are settled", detection=federation.settings.detection, policy=config.conflict_policy)
    roots = config.state / ROOTS
    past = NormHistory(parts.store, config.norm_ratio).bounds
    merger = Merger(
        federation.settings, federation.model, federation.covariance, parts.blobs,
        roots=roots, past=past, device=_device(config),
    )  # fmt: skip
    expects = federation.settings.detection == "on-failure"
    plan = Plan(federation.exchanges, config.quorum, config.keep_versions, expects, config.max_claims)
    return Coordinator(parts.store, merger, plan, policy)


def _rule(config: ServerConfig, store: Store, *, certified: bool) -> Rule:
    """How conflicts are settled. Warns of a name that nobody has enrolled by: a slip, or somebody who is to come."""
    enrolled = {each.id for each in store.clients()} if certified else set(config.priority)
    unknown = [each for each in config.priority if each not in enrolled]
    if unknown:
        LOG.warning("priority names clients that have not enrolled", clients=unknown)
    return Rule(config.conflict_policy, config.priority)


def _open_ports(parts: Parts, coordinator: Coordinator, recorder: Recorder) -> Ports:
    trust, gate = parts.trust, StopGate()
    if trust is None:
        services = _services(parts, coordinator, recorder, gate, 0)
        _add_health(services)
        return Ports(gate, services, _bind(services, parts.listen, "--listen", None))
    strangers = StrangerGate(StrangerQuotas(), recorder)
    guards = [gate, strangers, Gate(parts.store, journal=recorder)]
    enrolment = grpc.aio.server(interceptors=guards, options=ENROLMENT_OPTIONS)
    enrol_port = _bind(enrolment, trust.enrol, "--enrol-listen", trust.one_sided)
    services = _services(parts, coordinator, recorder, gate, enrol_port)
    port = _bind(services, parts.listen, "--listen", trust.mutual)
    rpc.add_EnrolmentServicer_to_server(trust.enrolment(port), enrolment)
    _add_health(enrolment)
    return Ports(gate, services, port, enrolment, enrol_port)


def _services(
    parts: Parts, coordinator: Coordinator, recorder: Recorder, stop_gate: StopGate, enrol_port: int
) -> grpc.aio.Server:
    settings, store, trust = parts.federation.settings, parts.store, parts.trust

    def on_call(who: Caller) -> None:
        coordinator.seen(who.client_id)

    async def may_read(who: Caller, digest: str) -> bool:
        if digest == settings.covariance_digest:
            return True
        return await asyncio.to_thread(store.may_read, who.client_id, digest)

    def issue(role: str, uses: int, minutes: int, by: Caller) -> tuple[str, str]:
        assert trust is not None
        return trust.issue(role, uses, minutes, by=(by.client_id, by.role), port=enrol_port)

    gate = Gate(store, plaintext=trust is None, on_call=on_call, journal=recorder)
    largest = _largest(parts.federation)
    quotas = QuotaGate(Quotas(_limits(parts, largest)))
    server = grpc.aio.server(interceptors=[stop_gate, gate, quotas], options=OPTIONS)
    rpc.add_FederationServicer_to_server(FederationService(settings, coordinator, store), server)
    issuing, registrar = (issue if trust.authority.signs else None, trust.registrar) if trust else (None, None)
    operations = OperationsService(settings, coordinator, store, issuing, registrar)
    rpc.add_OperationsServicer_to_server(operations, server)
    seen, damaged = coordinator.seen, coordinator.damaged
    blobs = BlobService(parts.blobs, max_blob_bytes=largest, on_bytes=seen, may_read=may_read, on_damage=damaged)
    add_blobs(blobs, server)
    return server


def _largest(federation: Federation) -> int:
    """Bytes of the largest contribution that the federation's shapes allow."""
    weights = federation.settings.edited_weights
    return largest_contribution(federation.exchanges, {each: federation.model.shape(each) for each in weights})


def _limits(parts: Parts, largest: int) -> Limits:
    config, exchanges = parts.config, len(parts.federation.exchanges)
    hourly = config.upload_bytes_per_hour or usual_bytes_per_hour(largest, exchanges)
    return Limits(config.calls_per_second, hourly, config.unfinished_uploads)


def _add_health(server: grpc.aio.Server) -> None:
    """The standard health service, for `--check` and container engines."""
    servicer = health.aio.HealthServicer()
    servicer._server_status[""] = health_pb2.HealthCheckResponse.SERVING
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)


def _bind(server: grpc.aio.Server, address: ListenAddress, flag: str, tls: grpc.ServerCredentials | None) -> int:
    address = with_port(address, flag)
    try:
        port = server.add_secure_port(str(address), tls) if tls else server.add_insecure_port(str(address))
    except RuntimeError as error:
        raise in_use(address, flag) from error
    if not port:
        raise CollabEditError(f"{flag} {address}: cannot be listened on")
    return int(port)
