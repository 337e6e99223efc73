"""A server's real services in this process, with the real gate, store and blobs; called without a network."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import torch
from safetensors.torch import save_file

from collabedit.common.contribution import Factored, LayerUpdate, Metadata
from collabedit.common.contribution_file import write_contribution
from collabedit.common.editors import MEMIT, in_full
from collabedit.common.factors import factor_update
from collabedit.common.pairs import constants_of
from collabedit.common.prior import Prior
from collabedit.common.settings import Detection
from collabedit.server.authority import Authority, hash_token, new_token
from collabedit.server.blob_service import BlobService, add_blobs
from collabedit.server.blobs import BlobStore
from collabedit.server.config import ServerConfig
from collabedit.server.coordinator import Coordinator
from collabedit.server.database import migrate, open_engine, sqlite_url
from collabedit.server.enrolment import EnrolmentService, Registrar
from collabedit.server.federation import prepare
from collabedit.server.identity import Gate
from collabedit.server.keeper import Plan
from collabedit.server.listening import OPTIONS
from collabedit.server.merging import Merger
from collabedit.server.operations import OperationsService
from collabedit.server.policy import Policy
from collabedit.server.services import FederationService
from collabedit.server.sql_store import SqlStore
from collabedit.v1 import federation_pb2_grpc as rpc

D_OUT, D_IN, EDITS, MIN_RANK = 12, 24, 10, 8
WEIGHTS = tuple(f"transformer.h.{layer}.mlp.c_proj.weight" for layer in (0, 1))
SHAPES = dict.fromkeys(WEIGHTS, (D_OUT, D_IN))
HPARAMS = {
    "layers": [0, 1], "v_num_grad_steps": 5, "v_lr": 0.5, "v_weight_decay": 0.5, "clamp_norm_factor": 0.75,
    "kl_factor": 0.0625, "mom2_update_weight": 100,
}  # fmt: skip
LARGEST = 1 << 20


def make_model(folder: Path) -> Path:
    """A model folder as far as a server looks at it."""
    folder.mkdir(parents=True)
    torch.manual_seed(7)
    stored = {weight: torch.randn(D_IN, D_OUT) for weight in WEIGHTS}
    save_file({**stored, "transformer.wte.weight": torch.randn(5, D_OUT)}, folder / "model.safetensors")
    rows = {weight: torch.randn(200, D_IN, dtype=torch.float64) for weight in WEIGHTS}
    save_file({f"{w}.covariance": k.T @ k / len(k) for w, k in rows.items()}, folder / "covariance.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_layer": 2}))
    (folder / "hparams.json").write_text(json.dumps(HPARAMS))
    return folder


def good_update(seed: int, form: str) -> LayerUpdate:
    """A good layer: factored or dense; float32 or float64."""
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(D_IN, EDITS + seed % 5, generator=generator, dtype=torch.float64)
    residuals = torch.randn(D_OUT, keys.shape[1], generator=generator, dtype=torch.float64)
    made: LayerUpdate = factor_update(keys, residuals)
    if form[0] != "f" and isinstance(made, Factored):
        made = in_full(MEMIT, Prior(torch.eye(D_IN, dtype=torch.float64)), made)
    return made.to(torch.float32 if form.endswith("4") else torch.float64)


class Routes:
    """In a gRPC server's place: keeps the handlers that the generated code registers."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """The handlers come by the other method too."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Takes a service's handlers."""
        self.found |= {f"/{service}/{name}": each for name, each in handlers.items()}


class Call:
    """A call's context as the services use it."""

    def __init__(self, client: str) -> None:
        self.client = client
        self._ended: tuple[grpc.StatusCode | None, str] = (None, "")

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """Who one claims to be."""
        return (("x-client-id", self.client),)

    def auth_context(self) -> dict[str, Any]:
        """No certificate."""
        return {}

    def peer(self) -> str:
        """This process."""
        return "ipv4:127.0.0.1:1"

    def code(self) -> grpc.StatusCode | None:
        """How it was ended."""
        return self._ended[0]

    def details(self) -> str:
        """The line that it was ended with."""
        return self._ended[1]

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing: Any = ()) -> None:
        """Ends the call."""
        self._ended = (code, details)
        raise grpc.aio.AbortError


@dataclass
class Federation:
    """A server in a folder; `call` makes one call of it."""

    folder: Path
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    detection: Detection = "off"

    def __post_init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        model = make_model(self.folder / "model")
        config = ServerConfig(
            state=self.folder / "state", insecure=True, model=str(model), quorum=100, detection=self.detection
        )
        engine = open_engine(sqlite_url(self.folder / "db"))
        migrate(engine)
        self.store, self.blobs = SqlStore(engine), BlobStore(self.folder / "blobs")
        federation = prepare(config, self.store, self.blobs, "fuzzed")
        self.settings = federation.settings
        self.merger = Merger(federation.settings, federation.model, federation.covariance, self.blobs)
        policy = Policy(entry_window=1e9, round_deadline=1e9, layer_deadline=1e9, liveness=1e9)
        self.coordinator = Coordinator(self.store, self.merger, Plan(federation.exchanges, 100), policy)
        self.authority = Authority.open(self.folder / "pki", self.now)
        self.registrar = Registrar(self.authority, self.store, lambda: self.now)
        self.handlers = self.loop.run_until_complete(self._open())

    async def _open(self) -> dict[str, Any]:
        await self.coordinator.start()
        routes, gate = Routes(), Gate(self.store, plaintext=True)
        rpc.add_FederationServicer_to_server(FederationService(self.settings, self.coordinator, self.store), routes)
        operations = OperationsService(self.settings, self.coordinator, self.store, self._issue, self.registrar)
        rpc.add_OperationsServicer_to_server(operations, routes)
        blobs = BlobService(self.blobs, max_blob_bytes=LARGEST, may_read=self._may_read)
        add_blobs(blobs, routes)
        rpc.add_EnrolmentServicer_to_server(EnrolmentService(self.registrar, ":1"), routes)
        guarded = {}
        for method, handler in routes.found.items():
            details = type("Details", (), {"method": method, "invocation_metadata": ()})()

            async def inner(_: Any, handler: Any = handler) -> Any:
                return handler

            guarded[method] = await gate.intercept_service(inner, details)
        return guarded

    def _issue(self, *_: Any) -> tuple[str, str]:
        return "TOKEN", "collab pki enrol"

    async def _may_read(self, who: Any, digest: str) -> bool:
        return await asyncio.to_thread(self.store.may_read, who.client_id, digest)

    def token(self, role: str = "client", uses: int = 1) -> str:
        """A token that enrols."""
        token = new_token()
        self.store.add_token(hash_token(token), role, uses, self.now.timestamp() + 1e6)
        return token

    def call(self, method: str, request: Any, client: str = "ada", *, seconds: float = 5.0) -> tuple[Any, str, str]:
        """(reply or None, status, line); what is no answer is raised. request: a message, or a list for a stream."""
        return self.loop.run_until_complete(asyncio.wait_for(self._call(method, request, client), seconds))

    async def _call(self, method: str, request: Any, client: str) -> tuple[Any, str, str]:
        handler, call = self.handlers[method], Call(client)
        try:
            if handler.request_streaming:
                return await handler.stream_unary(_stream(request), call), "OK", ""
            if handler.response_streaming:
                return [each async for each in handler.unary_stream(request, call)], "OK", ""
            return await handler.unary_unary(request, call), "OK", ""
        except grpc.aio.AbortError:
            return None, call.code().name, call.details()

    def contribution(self, seed: int, form: str, layer: int = 0) -> bytes:
        """The bytes of a good contribution to the round under way."""
        file = self.folder / "good.safetensors"
        update = good_update(seed, form)
        write_contribution(file, {WEIGHTS[layer]: update}, self.metadata, packed=not form.startswith("full"))
        return file.read_bytes()

    @property
    def metadata(self) -> Metadata:
        """What a good contribution says about itself."""
        round_ = self.coordinator.view().round
        return Metadata(
            model_fingerprint=self.settings.model_fingerprint,
            covariance_fingerprint=self.settings.covariance_fingerprint,
            algorithm="MEMIT",
            schedule=self.settings.schedule,
            spread=self.settings.spread,
            residual_shares=self.settings.residual_shares,
            constants=constants_of(self.settings.editor, self.settings.hparams),
            base_version=round_.base_version,
            round=round_.number,
            edits=EDITS,
        )

    @property
    def said(self) -> dict[str, str]:
        """What the metadata of an acceptable contribution must say, as strings."""
        must = ("model_fingerprint", "covariance_fingerprint", "algorithm", "schedule", "base_version", "round")
        return {key: str(value) for key, value in self.metadata.model_dump().items() if key in must}

    def open_port(self) -> int:
        """Serves the same services on a port of this host."""

        class Known(grpc.GenericRpcHandler):
            def service(_, details: Any) -> Any:  # noqa: N805
                return self.handlers.get(details.method)

        async def start() -> int:
            self.port_server = grpc.aio.server(options=OPTIONS)
            self.port_server.add_generic_rpc_handlers((Known(),))
            port = self.port_server.add_insecure_port("localhost:0")
            await self.port_server.start()
            return port

        return self.loop.run_until_complete(start())

    def close_port(self) -> None:
        """Serves there no more."""
        self.loop.run_until_complete(self.port_server.stop(None))

    def close(self) -> None:
        """Stops it."""
        self.loop.run_until_complete(self.coordinator.stop())
        self.store.close()
        self.loop.close()


async def _stream(messages: Any) -> Any:
    for each in messages:
        yield each


def digest_of(data: bytes) -> str:
    """A blob's address."""
    return hashlib.sha256(data).hexdigest()
