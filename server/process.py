"""The server's process: its parts put together, its ports opened, until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

import grpc.aio
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from collabedit.common.errors import CollabEditError
from collabedit.server.addresses import ListenAddress, in_use
from collabedit.server.blob_service import BlobService
from collabedit.server.blobs import BlobStore
from collabedit.server.config import ServerConfig
from collabedit.server.coordinator import Coordinator, Plan
from collabedit.server.federation import Federation
from collabedit.server.identity import Caller, Gate
from collabedit.server.listening import OPTIONS
from collabedit.server.merging import Merger
from collabedit.server.operations import OperationsService
from collabedit.server.policy import Policy
from collabedit.server.services import FederationService
from collabedit.server.state_folder import Running, forget_running, note_running
from collabedit.server.store import Store
from collabedit.v1 import federation_pb2_grpc as rpc

LOG = structlog.get_logger()
GRACE = 1.0  # seconds that calls under way get when the server stops


@dataclass(frozen=True)
class Parts:
    """What the process is made of, ready."""

    config: ServerConfig
    federation: Federation
    store: Store
    blobs: BlobStore
    listen: ListenAddress


async def serve(parts: Parts, announce: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT. announce: told a line for people once it serves."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    coordinator = _coordinator(parts)
    await coordinator.start()
    server = _services(parts, coordinator)
    port = _bind(server, parts.listen, "--listen")
    await server.start()
    ticking = asyncio.create_task(coordinator.run())
    listen = f"{parts.listen.host}:{port}"
    note_running(parts.config.state, Running(listen, "", os.getpid()))
    LOG.info("listening", on=listen, federation=parts.federation.settings.federation)
    announce(f"listening on {listen}" + (" (plaintext)" if parts.config.insecure else ""))
    await stop.wait()
    LOG.info("stopping")
    ticking.cancel()
    await server.stop(GRACE)
    await coordinator.stop()
    forget_running(parts.config.state)


def _coordinator(parts: Parts) -> Coordinator:
    config, federation = parts.config, parts.federation
    policy = Policy(config.entry_window, config.round_deadline, config.layer_deadline, config.liveness)
    merger = Merger(federation.settings, federation.model, federation.covariance, parts.blobs)
    return Coordinator(parts.store, merger, Plan(federation.exchanges, config.quorum), policy)


def _services(parts: Parts, coordinator: Coordinator) -> grpc.aio.Server:
    settings, store = parts.federation.settings, parts.store

    def on_call(who: Caller) -> None:
        coordinator.seen(who.client_id)

    async def may_read(who: Caller, digest: str) -> bool:
        if digest == settings.covariance_digest:
            return True
        return await asyncio.to_thread(store.may_read, who.client_id, digest)

    gate = Gate(store, plaintext=parts.config.insecure, on_call=on_call)
    server = grpc.aio.server(interceptors=[gate], options=OPTIONS)
    rpc.add_FederationServicer_to_server(FederationService(settings, coordinator, store), server)
    rpc.add_OperationsServicer_to_server(OperationsService(settings, coordinator, store, None), server)
    rpc.add_BlobsServicer_to_server(BlobService(parts.blobs, on_bytes=coordinator.seen, may_read=may_read), server)
    health_pb2_grpc.add_HealthServicer_to_server(_health(), server)
    return server


def _health() -> health_aio.HealthServicer:
    servicer = health_aio.HealthServicer()
    servicer._server_status[""] = health_pb2.HealthCheckResponse.SERVING
    return servicer


def _bind(server: grpc.aio.Server, address: ListenAddress, flag: str) -> int:
    try:
        port = server.add_insecure_port(str(address))
    except RuntimeError as error:
        raise in_use(address, flag) from error
    if not port:
        raise CollabEditError(f"{flag} {address}: cannot be listened on")
    return port
