"""The way to the server: its address, the channel, waiting out what passes, and errors in the user's terms."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

import grpc
import stamina
import stamina.instrumentation

from collabedit.client.backoff import CALLS
from collabedit.client.diagnosis import diagnose
from collabedit.common.credentials import Credentials
from collabedit.common.errors import (
    BadFileError,
    CollabEditError,
    ContributionError,
    Fault,
    IdentityError,
    MismatchError,
    RoundError,
    UnreachableError,
    UsageError,
)

Result = TypeVar("Result")

stamina.instrumentation.set_on_retry_hooks([])  # a line for each try, on standard output where --json's object belongs

DEFAULT_SERVER: Final = "localhost:50051"
CREDENTIALS_FOLDER: Final = "credentials"
ERROR_KEY: Final = "collabedit-error"
RETRY_AFTER_KEY: Final = "collabedit-retry-after-ms"
CALL_SECONDS: Final = 30.0
PATIENCE_SECONDS: Final = 60.0
PASSING: Final = frozenset({grpc.StatusCode.UNAVAILABLE})
OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # of one attempt to connect: a lost SYN is sent again after 1 s and 3 s
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.http2.bdp_probe", 0),  # left to itself gRPC takes in ever more of a stream that the disk is behind with
    ("grpc.http2.lookahead_bytes", 4 << 20),
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.enable_http_proxy", 0),
)


class StaleRoundError(RoundError):
    """The round, attempt or layer named is not the one under way."""


class StaleVersionError(RoundError):
    """The weights held are not the version that the round stands on."""


class DigestRefusedError(BadFileError):
    """The server got bytes that do not have the digest announced, and threw them away."""

    fault = Fault.PEER


class ChecksumRefusedError(BadFileError):
    """A chunk was damaged on its way; what came before it stands."""

    fault = Fault.PEER


class QuotaError(RoundError):
    """A quota is used up. retry_after: seconds after which the server takes the call again."""

    def __init__(self, what: str, *, mend: str = "", retry_after: float = 0.0) -> None:
        super().__init__(what, mend=mend)
        self.retry_after = retry_after


class ServerFailedError(CollabEditError):
    """The server made a mistake of its own."""

    fault = Fault.PEER


BY_NAME: Final[Mapping[str, type[CollabEditError]]] = {
    "version": MismatchError,
    "fingerprint": MismatchError,
    "federation": MismatchError,
    "stale-round": StaleRoundError,
    "stale-version": StaleVersionError,
    "counted": StaleRoundError,
    "damaged": RoundError,
    "contribution": ContributionError,
    "digest": DigestRefusedError,
    "checksum": ChecksumRefusedError,
    "token": IdentityError,
    "role": IdentityError,
    "revoked": IdentityError,
    "superseded": IdentityError,
    "federation-key": IdentityError,
}
BY_CODE: Final[Mapping[grpc.StatusCode, type[CollabEditError]]] = {
    grpc.StatusCode.UNAUTHENTICATED: IdentityError,
    grpc.StatusCode.PERMISSION_DENIED: IdentityError,
    grpc.StatusCode.ALREADY_EXISTS: IdentityError,
    grpc.StatusCode.INVALID_ARGUMENT: UsageError,
    grpc.StatusCode.FAILED_PRECONDITION: RoundError,
    grpc.StatusCode.ABORTED: RoundError,
    grpc.StatusCode.NOT_FOUND: BadFileError,
    grpc.StatusCode.OUT_OF_RANGE: BadFileError,
    grpc.StatusCode.DATA_LOSS: BadFileError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: RoundError,
    grpc.StatusCode.UNIMPLEMENTED: MismatchError,
}


@dataclass(frozen=True)
class Address:
    """Where a server listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Reads `host:port`, `[::1]:port` with an IPv6 address. Raises UsageError."""
        found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/\[\]]+)):(\d{1,5})", text.strip())
        if not found or not 0 < int(found[3]) < 1 << 16:
            raise UsageError(f'"{text}" is no address', mend=f"write host:port, such as {DEFAULT_SERVER}")
        return cls(found[1] or found[2], int(found[3]))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this host can be meant."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class Connection:
    """A channel to one server, with what is needed to say what went wrong on it.

    Make stubs on `.channel`; call their methods through `call`, which waits out a server that is away and raises
    CollabEditError alone. A context manager: leaving it closes the channel.
    """

    def __init__(self, address: Address, channel: grpc.Channel, credentials: Credentials | None) -> None:
        self.address = address
        self.channel = channel
        self._credentials = credentials
        self._old: list[grpc.Channel] = []

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the channel and every call on it."""
        for each in (*self._old, self.channel):
            each.close()

    def use(self, credentials: Credentials) -> None:
        """Makes calls with renewed credentials from now on; those under way go on over the old channel."""
        before = self.channel
        self.channel, self._credentials = open_channel(self.address, credentials), credentials
        while self._old:
            self._old.pop().close()
        self._old.append(before)

    def call(
        self,
        method: Callable[..., Result],
        request: Any,
        *,
        timeout: float = CALL_SECONDS,
        patience: float = PATIENCE_SECONDS,
    ) -> Result:
        """The reply of a stub's unary method, which must be idempotent: it is repeated while the server is away.

        timeout: seconds for one try. patience: seconds in all (0: one try). Raises what `translate` makes of errors.
        """
        return self.patiently(lambda: method(request, timeout=timeout), patience=patience)

    def patiently(self, act: Callable[[], Result], *, patience: float = PATIENCE_SECONDS) -> Result:
        """What `act` returns; repeated with growing pauses while it fails as a server does that is away or starts anew.

        A refused identity is not waited out. Raises what `translate` makes of the last error.
        """
        pauses = CALLS.pauses()
        for attempt in stamina.retry_context(
            on=lambda error: _passes(error, patience, pauses),
            attempts=None if patience > 0 else 1,
            timeout=patience if patience > 0 else None,
        ):
            with attempt:
                try:
                    return act()
                except grpc.RpcError as error:
                    raise self.translate(error) from error
        raise AssertionError("stamina ends by an error or a result")

    def translate(self, error: grpc.RpcError) -> CollabEditError:
        """The error in the user's terms; where the server was not to be had, looks again to say why."""
        return translate(error, self.address, self._credentials)


def _passes(error: Exception, patience: float, pauses: Iterator[float]) -> bool | float:
    """The seconds that an error is waited out, or False; of a quota, those that the server asks for come first."""
    if isinstance(error, QuotaError):
        return error.retry_after + next(pauses) if error.retry_after <= patience else False
    return next(pauses) if isinstance(error, UnreachableError) else False


def connect(server: str | Address, credentials: Credentials | Path | None, *, client_id: str = "") -> Connection:
    """A connection over mutual TLS with the credentials (or their folder); None: plaintext, to loopback only.

    client_id: who one claims to be in plaintext. Nothing is sent yet. Raises IdentityError, StateError, UsageError.
    """
    address = Address.parse(server) if isinstance(server, str) else server
    held = Credentials.load(credentials) if isinstance(credentials, Path) else credentials
    return Connection(address, open_channel(address, held, client_id=client_id), held)


def open_channel(address: Address, credentials: Credentials | None, *, client_id: str = "") -> grpc.Channel:
    """The bare channel of `connect`."""
    if credentials is None:
        if not address.loopback:
            raise UsageError(
                f"{address}: plaintext is for this host alone", mend="enrol with `collab pki enrol`, or use localhost"
            )
        channel = grpc.insecure_channel(str(address), options=OPTIONS)
        return grpc.intercept_channel(channel, _Claim(client_id)) if client_id else channel
    tls = grpc.ssl_channel_credentials(credentials.ca_pem, credentials.key_pem, credentials.certificate_pem)
    return grpc.secure_channel(str(address), tls, options=OPTIONS)


def translate(error: grpc.RpcError, address: Address, credentials: Credentials | None = None) -> CollabEditError:
    """A gRPC error as one of ours: by the server's name for it, else by its code.

    UNAVAILABLE says little, so the server is asked once more over a bare socket why (a few seconds at most).
    """
    code, details = error.code(), error.details() or ""
    trailing: tuple[tuple[str, str | bytes], ...] = tuple(error.trailing_metadata() or ())  # type: ignore[arg-type]
    said = {key: str(value) for key, value in trailing}
    name = said.get(ERROR_KEY, "")
    if name == "stopping":
        return UnreachableError(f"{address}: {details}", mend="nothing is lost: it is asked again until it answers")
    if code is grpc.StatusCode.UNAVAILABLE:
        return diagnose(address.host, address.port, str(address), credentials, details)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return UnreachableError(f"{address} did not answer in time", mend="look whether the server is overloaded")
    if code is grpc.StatusCode.CANCELLED:
        return UnreachableError(f"{address}: the call was cut off")
    return _refusal(code, name, f"{address}: {details or code.name}", said.get(RETRY_AFTER_KEY, ""))


def _refusal(code: grpc.StatusCode, name: str, what: str, retry_after_ms: str) -> CollabEditError:
    """What a server that answers says no with."""
    if name == "quota":
        seconds = int(retry_after_ms) / 1000 if retry_after_ms.isdecimal() else 0.0
        return QuotaError(what, mend="what is not done yet waits until then", retry_after=seconds)
    kind = BY_NAME.get(name) or BY_CODE.get(code)
    return kind(what) if kind else ServerFailedError(f"the server failed, {what}", mend="see the server's log")


def credentials_folder(state: Path) -> Path:
    """Where a client's state folder keeps its credentials."""
    return state / CREDENTIALS_FOLDER


class _Claim(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
):
    """In plaintext mode: every call says who makes it."""

    def __init__(self, client_id: str) -> None:
        self._entry = ("x-client-id", client_id)

    def _claimed(self, details: grpc.ClientCallDetails) -> grpc.ClientCallDetails:
        return _Details(details, (*(details.metadata or ()), self._entry))

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._claimed(client_call_details), request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._claimed(client_call_details), request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return continuation(self._claimed(client_call_details), request_iterator)


class _Details(grpc.ClientCallDetails):
    def __init__(self, details: grpc.ClientCallDetails, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        self.method, self.timeout, self.credentials = details.method, details.timeout, details.credentials
        self.wait_for_ready, self.compression, self.metadata = details.wait_for_ready, details.compression, metadata
