"""A server in this process over real mutual TLS, a store in memory, a proxy that counts, holds and cuts."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from collabedit.client.connection import Connection, connect
from collabedit.common import pki
from collabedit.common.credentials import Credentials
from collabedit.server.audit import Entry
from collabedit.server.authority import Authority, hash_token, names_of_server, new_token
from collabedit.server.blob_service import BlobService, add_blobs
from collabedit.server.blobs import BlobStore
from collabedit.server.enrolment import EnrolmentService, Registrar
from collabedit.server.identity import Gate
from collabedit.server.listening import ENROLMENT_OPTIONS, OPTIONS, mutual_tls, server_tls
from collabedit.server.operations import OperationsService
from collabedit.v1 import federation_pb2 as pb
from collabedit.v1 import federation_pb2_grpc as rpc

MIB = 1 << 20


@dataclass(frozen=True)
class Member:
    role: str
    serial: str
    revoked: bool = False
    previous: str = ""


@dataclass
class Memory:
    """Tokens and clients in memory, as the server's store keeps them."""

    tokens: dict[str, tuple[str, int, float]] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    revoked_serials: set[str] = field(default_factory=set)
    noted: list[Entry] = field(default_factory=list)

    def add_token(self, hash_: str, role: str, uses: int, expires: float) -> None:
        self.tokens[hash_] = (role, uses, expires)

    def token_role(self, hash_: str, now: float) -> str | None:
        self.asked.append(hash_)
        role, uses, expires = self.tokens.get(hash_, ("", 0, 0.0))
        return role if uses and expires > now else None

    def use_token(self, hash_: str, now: float, noted: Entry | None = None) -> str | None:
        role = self.token_role(hash_, now)
        if role:
            self.note(noted)
            _, uses, expires = self.tokens[hash_]
            self.tokens[hash_] = (role, uses - 1, expires)
        return role

    def enrol_client(self, hash_: str, id_: str, serial: str, now: float, noted: Sequence[Entry] = ()) -> str | None:
        role = self.use_token(hash_, now)
        if role:
            self.members[id_] = Member(role, serial)
            self.noted += noted
        return role

    def add_client(self, id_: str, role: str, serial: str, now: float, noted: Entry | None = None) -> None:
        self.members[id_] = Member(role, serial)
        self.note(noted)

    def renew_client(self, id_: str, serial: str, previous: str, noted: Entry | None = None) -> None:
        if id_ in self.members:
            self.members[id_] = replace(self.members[id_], serial=serial, previous=previous)
        self.note(noted)

    def serial_revoked(self, serial: str) -> bool:
        return serial in self.revoked_serials

    def note(self, noted: Entry | None) -> None:
        if noted:
            self.noted.append(noted)

    def client(self, id_: str) -> Member | None:
        return self.members.get(id_)

    def revoke(self, id_: str) -> None:
        self.members[id_] = replace(self.members.get(id_) or Member("client", ""), revoked=True)


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout=60)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=30)
        self.loop.close()


class Recorder(grpc.aio.ServerInterceptor):
    """Keeps the bytes of every single request that reaches the enrolment port."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, bytes]] = []

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)

        async def recorded(request: Any, context: Any) -> Any:
            self.requests.append((handler_call_details.method.rpartition("/")[2], request.SerializeToString()))
            return await handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(recorded, handler.request_deserializer, handler.response_serializer)


@dataclass
class Federation:
    """A server's parts, started; `now` is its clock."""

    folder: Path
    loop: Loop
    limit: int = 64 * MIB
    plaintext: bool = False
    names: tuple[str, ...] = names_of_server(["localhost"], [])
    memory: Memory = field(default_factory=Memory)
    recorder: Recorder = field(default_factory=Recorder)
    heard: list[str] = field(default_factory=list)
    unreadable: set[str] = field(default_factory=set)
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    port: int = 0
    enrol_port: int = 0
    _servers: list[grpc.aio.Server] = field(default_factory=list)

    def start(self) -> Federation:
        self.authority = Authority.open(self.folder / "pki", self.now)
        self.blobs = BlobStore(self.folder / "blobs")
        self.loop.run(self._start())
        return self

    async def _start(self) -> None:
        held = self.authority.server_identity(self.names, self.now)
        gate = Gate(self.memory, plaintext=self.plaintext)
        self.server = grpc.aio.server(interceptors=[gate], options=OPTIONS)

        async def may_read(_: Any, digest: str) -> bool:
            return digest not in self.unreadable

        service = BlobService(
            self.blobs, max_blob_bytes=self.limit, max_uploads=4, on_bytes=self.heard.append, may_read=may_read
        )
        add_blobs(service, self.server)
        registrar = Registrar(self.authority, self.memory, lambda: self.now)
        rpc.add_OperationsServicer_to_server(Operations(registrar), self.server)
        if self.plaintext:
            self.port = self.server.add_insecure_port("localhost:0")
        else:
            tls = mutual_tls(held.key_pem, held.certificate_pem, self.authority.ca_pem)
            self.port = self.server.add_secure_port("localhost:0", tls)
        enrolment = grpc.aio.server(interceptors=[self.recorder], options=ENROLMENT_OPTIONS)
        servicer = EnrolmentService(registrar, f":{self.port}")
        rpc.add_EnrolmentServicer_to_server(servicer, enrolment)
        self.enrol_port = enrolment.add_secure_port("localhost:0", server_tls(held.key_pem, held.certificate_pem))
        self._servers = [self.server, enrolment]
        for each in self._servers:
            await each.start()

    def stop(self) -> None:
        for each in self._servers:
            self.loop.run(each.stop(None))

    def token(self, *, role: str = "client", uses: int = 1, minutes: float = 60) -> str:
        token = new_token()
        self.memory.add_token(hash_token(token), role, uses, (self.now + timedelta(minutes=minutes)).timestamp())
        return token

    def credentials(self, name: str = "alice", *, role: pki.Role = "client", days_ago: int = 0) -> Credentials:
        """A certificate of the federation's CA, made by hand; the store knows nothing of it."""
        made = pki.issue_client(self.authority.signer, name, role, self.now - timedelta(days=days_ago))
        return Credentials(self.authority.ca_pem, made.certificate_pem, made.key_pem, f"localhost:{self.port}")

    def connect(self, credentials: Credentials | None = None, *, port: int = 0) -> Connection:
        return connect(f"localhost:{port or self.port}", credentials or self.credentials())


class Operations(OperationsService):
    def __init__(self, registrar: Registrar) -> None:
        self._registrar = registrar

    async def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.GetStatusReply:  # noqa: N802
        return pb.GetStatusReply(clients=1)

    async def IssueToken(self, request: pb.IssueTokenRequest, context: Any) -> pb.IssueTokenReply:  # noqa: N802
        said = f"{request.role} {request.uses} {request.valid_minutes}"
        return pb.IssueTokenReply(token="TOKEN", command=f"collab pki enrol for {said}")

    async def Revoke(self, request: pb.RevokeRequest, context: Any) -> pb.RevokeReply:  # noqa: N802
        return pb.RevokeReply(known=True)


class Proxy:
    """Passes TCP on to a port of this host and counts both ways.

    cut(up=…, down=…): ends each connection after so many bytes, once. hold(…): from then on passes nothing more that
    way and sets `held`.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.up = self.down = 0
        self.connections = 0
        self.held = threading.Event()
        self._limits: dict[str, tuple[str, int]] = {}
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, **limits: int) -> Proxy:
        self._limits = {way: ("cut", after) for way, after in limits.items()}
        return self

    def hold(self, **limits: int) -> Proxy:
        self._limits = {way: ("hold", after) for way, after in limits.items()}
        return self

    def release(self) -> None:
        self._limits = {}

    def close(self) -> None:
        self._listener.close()
        self.drop()

    def drop(self) -> None:
        """Cuts every connection now."""
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("localhost", self.target))
                except OSError:
                    near.close()
                    continue
                self.connections += 1
                self._sockets += [near, far]
                for way, source, sink in (("up", near, far), ("down", far, near)):
                    threading.Thread(target=self._pump, args=(way, source, sink), daemon=True).start()

    def _pump(self, way: str, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if self._stopped(way, len(data)):
                    break
                sink.sendall(data)
            if not self.held.is_set():
                sink.shutdown(socket.SHUT_RDWR)
                source.shutdown(socket.SHUT_RDWR)

    def _stopped(self, way: str, count: int) -> bool:
        with self._lock:
            passed = getattr(self, way) + count
            setattr(self, way, passed)
            how, after = self._limits.get(way, ("", 0))
            if not how or passed <= after:
                return False
            if how == "cut":
                del self._limits[way]
            else:
                self.held.set()
            return True


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    """One loop for all servers of the session."""
    made = Loop()
    yield made
    made.stop()


@pytest.fixture
def start(tmp_path: Path, loop: Loop) -> Iterator[Callable[..., Federation]]:
    """Starts a federation's server in a folder below tmp_path; all are stopped at the end."""
    started: list[Federation] = []

    def begin(folder: str = "server", **options: Any) -> Federation:
        started.append(Federation(tmp_path / folder, loop, **options).start())
        return started[-1]

    yield begin
    for each in started:
        each.stop()


@pytest.fixture
def federation(start: Callable[..., Federation]) -> Federation:
    """A server over mutual TLS, started."""
    return start()


@pytest.fixture
def proxy() -> Iterator[Callable[[int], Proxy]]:
    """Makes a proxy to a port of this host."""
    made: list[Proxy] = []

    def begin(target: int) -> Proxy:
        made.append(Proxy(target))
        return made[-1]

    yield begin
    for each in made:
        each.close()


@pytest.fixture
def file_of(tmp_path: Path) -> Callable[..., tuple[Path, str]]:
    """Makes a file of so many bytes, the same for the same seed; returns it with its digest."""

    def make(size: int, seed: int = 0) -> tuple[Path, str]:
        path = tmp_path / f"file-{size}-{seed}"
        data = random.Random(seed).randbytes(size)
        path.write_bytes(data)
        return path, hashlib.sha256(data).hexdigest()

    return make


os.environ.setdefault("GRPC_VERBOSITY", "NONE")
