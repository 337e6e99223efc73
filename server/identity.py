"""Who calls: the identity of every call is checked before the servicer sees it, and again while a stream goes on.

Over mutual TLS the client's id is the certificate's common name; in plaintext mode (loopback only) it is the metadata
entry `x-client-id`, taken at its word.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, NoReturn, Protocol

import grpc
import grpc.aio

from collabedit.common.errors import IdentityError
from collabedit.common.pki import Role, check_client_id, identity_of, load_certificate

ERROR_KEY: Final = "collabedit-error"
CLIENT_ID_KEY: Final = "x-client-id"
PLAINTEXT_ADMIN: Final = "admin"
ADMIN_METHODS: Final = frozenset(
    f"/collabedit.v1.Operations/{name}" for name in ("IssueToken", "Revoke", "AbortRound", "RollBack")
)
RECHECK_SECONDS: Final = 2.0  # how long a stream outlives its client's revocation


@dataclass(frozen=True)
class Caller:
    """Who makes a call."""

    client_id: str
    role: Role


class Client(Protocol):
    """What the store knows about one client."""

    @property
    def role(self) -> str:
        """The role that it enrolled with: client or admin."""
        ...

    @property
    def serial(self) -> str:
        """Serial number of its certificate, decimal; "": any certificate of this name counts."""
        ...

    @property
    def revoked(self) -> bool:
        """Whether its certificate has been revoked."""
        ...


class Clients(Protocol):
    """Where clients are looked up; blocks, and is called from a worker thread."""

    def client(self, client_id: str, /) -> Client | None:
        """The client of this id; None for one that the federation's CA certified without the server."""
        ...


_CALLER: ContextVar[Caller] = ContextVar("caller")


def caller(context: object) -> Caller:
    """Who makes the call that is being served; only inside calls that passed the `Gate`."""
    return _CALLER.get()


async def refuse(context: Any, code: grpc.StatusCode, what: str, *, name: str = "") -> NoReturn:
    """Ends a call with a one-line message and, where callers tell it apart, the error's name as trailing metadata."""
    trailing = ((ERROR_KEY, name),) if name else ()
    await context.abort(code, " ".join(what.split()), trailing)
    raise AssertionError("abort returned")


class Gate(grpc.aio.ServerInterceptor):
    """Lets a call through to its servicer only for a caller who may make it.

    Refuses with UNAUTHENTICATED a caller without an identity, with PERMISSION_DENIED one that has been revoked (also in
    the middle of a stream) or whose role does not allow the method.
    """

    def __init__(
        self, clients: Clients, *, plaintext: bool = False, on_call: Callable[[Caller], None] | None = None
    ) -> None:
        self._clients = clients
        self._plaintext = plaintext
        self._on_call = on_call

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wraps the method's handler so that the caller is checked before it runs."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = str(handler_call_details.method)
        if handler.response_streaming:
            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            behavior = self._streaming(handler.stream_stream or handler.unary_stream, method)
        else:
            make = (
                grpc.stream_unary_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_unary_rpc_method_handler
            )
            behavior = self._single(handler.stream_unary or handler.unary_unary, method)
        return make(behavior, handler.request_deserializer, handler.response_serializer)

    def _single(self, inner: Any, method: str) -> Any:
        async def guarded(request: Any, context: Any) -> Any:
            who = await self._admit(context, method)
            token = _CALLER.set(who)
            try:
                return await inner(self._watched(request, context, who), context)
            finally:
                _CALLER.reset(token)

        return guarded

    def _streaming(self, inner: Any, method: str) -> Any:
        async def guarded(request: Any, context: Any) -> AsyncIterator[Any]:
            who = await self._admit(context, method)
            _CALLER.set(who)
            answers = inner(self._watched(request, context, who), context)
            async with aclosing(answers), aclosing(self._rechecking(answers, context, who)) as replies:
                async for reply in replies:
                    yield reply

        return guarded

    def _watched(self, messages: Any, context: Any, who: Caller) -> Any:
        """A stream that ends within seconds of its client's revocation; a single message as it is."""
        return self._rechecking(messages, context, who) if hasattr(messages, "__aiter__") else messages

    async def _rechecking(self, messages: AsyncIterator[Any], context: Any, who: Caller) -> AsyncGenerator[Any, None]:
        due = time.monotonic() + RECHECK_SECONDS
        async for message in messages:
            if time.monotonic() >= due:
                await self._check_unrevoked(context, who.client_id)
                due = time.monotonic() + RECHECK_SECONDS
            yield message

    async def _admit(self, context: Any, method: str) -> Caller:
        try:
            claimed, serial = _from_metadata(context) if self._plaintext else _from_certificate(context)
        except IdentityError as error:
            await refuse(context, grpc.StatusCode.UNAUTHENTICATED, error.what)
        known = await self._check_unrevoked(context, claimed.client_id)
        if known and known.serial and serial and known.serial != serial:
            what = f"the certificate of {claimed.client_id} has been replaced by a newer one; use that, or enrol again"
            await refuse(context, grpc.StatusCode.PERMISSION_DENIED, what, name="revoked")
        who = Caller(claimed.client_id, "admin" if known.role == "admin" else "client") if known else claimed
        if method in ADMIN_METHODS and who.role != "admin":
            what = f"{who.client_id} is no admin: {method.rpartition('/')[2]} needs an admin's certificate"
            await refuse(context, grpc.StatusCode.PERMISSION_DENIED, what, name="role")
        if self._on_call:
            self._on_call(who)
        return who

    async def _check_unrevoked(self, context: Any, client_id: str) -> Client | None:
        known = await asyncio.to_thread(self._clients.client, client_id)
        if known is not None and known.revoked:
            what = f"the certificate of {client_id} has been revoked; ask the server's operator for a new enrolment"
            await refuse(context, grpc.StatusCode.PERMISSION_DENIED, what, name="revoked")
        return known


def _from_certificate(context: Any) -> tuple[Caller, str]:
    chain = context.auth_context().get("x509_pem_cert")
    if not chain:
        raise IdentityError("no client certificate; enrol with `collab pki enrol`")
    certificate = load_certificate(chain[0])
    client_id, role = identity_of(certificate)
    return Caller(client_id, role), str(certificate.serial_number)


def _from_metadata(context: Any) -> tuple[Caller, str]:
    entries = [str(value) for key, value in context.invocation_metadata() or () if key == CLIENT_ID_KEY]
    if len(entries) != 1:
        raise IdentityError(f"in plaintext mode the metadata must name the caller once as {CLIENT_ID_KEY}")
    client_id = check_client_id(entries[0])
    return Caller(client_id, "admin" if client_id == PLAINTEXT_ADMIN else "client"), ""
