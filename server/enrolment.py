"""How a party comes by its certificate: a one-time token against the signature of the key that it made itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Final, Protocol

import grpc
import structlog

from collabedit.common import pki
from collabedit.common.errors import IdentityError
from collabedit.common.files import write_durably
from collabedit.server.authority import ADMIN_ID, Authority, hash_token
from collabedit.server.identity import refuse
from collabedit.v1 import federation_pb2 as pb
from collabedit.v1 import federation_pb2_grpc as rpc

LOG = structlog.get_logger()
ISSUED_FOLDER: Final = "issued"


class KnownClient(Protocol):
    """What is remembered of an enrolled client."""

    @property
    def serial(self) -> str:
        """Serial number of its certificate, decimal."""
        ...

    @property
    def revoked(self) -> bool:
        """Whether its certificate has been revoked."""
        ...


class Members(Protocol):
    """Where tokens and clients are kept; each method is one durable transaction, and blocks."""

    def token_role(self, hash_: str, now: float, /) -> str | None:
        """The role that a token gives, if it can be used at `now`; uses nothing up."""
        ...

    def use_token(self, hash_: str, now: float, /) -> str | None:
        """Takes one use of a token and returns its role; None where it is unknown, used up or expired."""
        ...

    def add_client(self, id_: str, role: str, serial: str, now: float, /) -> None:
        """Remembers an enrolled client, in the place of an earlier certificate of its own."""
        ...

    def client(self, id_: str, /) -> KnownClient | None:
        """An enrolled client by its id."""
        ...


class EnrolmentRefusedError(IdentityError):
    """A request that is not signed; the class says how the call ends."""

    status: ClassVar[grpc.StatusCode] = grpc.StatusCode.INVALID_ARGUMENT
    name: ClassVar[str] = ""


class TokenRefusedError(EnrolmentRefusedError):
    """The token is unknown, used up or expired: which, is not told."""

    status = grpc.StatusCode.PERMISSION_DENIED
    name = "token"

    def __init__(self) -> None:
        super().__init__(
            "the enrolment token is unknown, used up or expired", mend="ask the server's operator for another"
        )


class RevokedError(EnrolmentRefusedError):
    """The certificate asked for again has been revoked."""

    status = grpc.StatusCode.PERMISSION_DENIED
    name = "revoked"


class NameTakenError(EnrolmentRefusedError):
    """Another key goes by this name."""

    status = grpc.StatusCode.ALREADY_EXISTS


@dataclass(frozen=True)
class Issued:
    """The last certificate issued under a name, and the hash of the token that it was issued against."""

    certificate_pem: bytes
    token: str

    @property
    def serial(self) -> str:
        """The certificate's serial number, decimal."""
        return str(pki.load_certificate(self.certificate_pem).serial_number)

    def is_for(self, request: pki.Request) -> bool:
        """Whether the certificate holds the key of the request."""
        key = pki.load_certificate(self.certificate_pem).public_key()
        return isinstance(key, pki.PublicKey) and pki.same_key(key, request.public_key)


class Registrar:
    """Signs requests against tokens. Blocks; one call at a time.

    A request repeated after its answer was lost (same token, same key, same name) gets the same certificate again.
    """

    def __init__(self, authority: Authority, members: Members, clock: Callable[[], datetime]) -> None:
        self._authority = authority
        self._members = members
        self._clock = clock
        self._folder = authority.folder / ISSUED_FOLDER

    def enrol(self, token: str, request: pki.Request) -> bytes:
        """The certificate, PEM. Raises TokenRefusedError, NameTakenError, RevokedError."""
        now, hash_ = self._clock(), hash_token(token)
        known, held = self._members.client(request.client_id), self._held(request.client_id)
        if held and held.token == hash_ and held.is_for(request):
            return self._again(request.client_id, held, known, now)
        if self._members.token_role(hash_, now.timestamp()) is None:
            raise TokenRefusedError
        self._check_name(request, known, held)
        role = self._members.use_token(hash_, now.timestamp())
        if role is None:
            raise TokenRefusedError
        certificate = pki.sign_request(self._authority.signer, request, "admin" if role == "admin" else "client", now)
        issued = Issued(pki.certificate_pem(certificate), hash_)
        self._keep(request.client_id, issued)
        self._members.add_client(request.client_id, role, issued.serial, now.timestamp())
        return issued.certificate_pem

    def _again(self, client_id: str, held: Issued, known: KnownClient | None, now: datetime) -> bytes:
        """The certificate that the same request got before; finishes what a kill may have left undone."""
        if known is not None and known.revoked:
            raise RevokedError(
                f"the certificate of {client_id} has been revoked", mend="enrol with a new token in a new --state"
            )
        if known is None or known.serial != held.serial:
            _, role = pki.identity_of(pki.load_certificate(held.certificate_pem))
            self._members.add_client(client_id, role, held.serial, now.timestamp())
        return held.certificate_pem

    def _check_name(self, request: pki.Request, known: KnownClient | None, held: Issued | None) -> None:
        another = not held.is_for(request) if held else known is not None
        free = known is not None and known.revoked
        if (another and not free) or request.client_id == ADMIN_ID:
            raise NameTakenError(
                f"the name {request.client_id} belongs to another key",
                mend="choose another with --name; the token has not been used up",
            )

    def _held(self, client_id: str) -> Issued | None:
        try:
            record = json.loads((self._folder / f"{client_id}.json").read_text())
        except FileNotFoundError:
            return None
        return Issued(record["certificate"].encode(), record["token"])

    def _keep(self, client_id: str, issued: Issued) -> None:
        record = {"certificate": issued.certificate_pem.decode(), "token": issued.token}
        write_durably(self._folder / f"{client_id}.json", json.dumps(record).encode())


class EnrolmentService(rpc.EnrolmentServicer):
    """Enrolment on its own port, where callers have no certificate yet.

    server: host:port of the federation's services as told to clients; an empty host means the one they enrolled at.
    """

    def __init__(self, authority: Authority, members: Members, server: str, clock: Callable[[], datetime]) -> None:
        self._authority = authority
        self._registrar = Registrar(authority, members, clock)
        self._server = server
        self._one_at_a_time = asyncio.Lock()

    async def GetAuthority(  # noqa: N802
        self,
        request: pb.GetAuthorityRequest,
        context: Any,
    ) -> pb.GetAuthorityReply:
        """The CA's certificate, for the caller to compare with the fingerprint that it was given."""
        return pb.GetAuthorityReply(ca_certificate_pem=self._authority.ca_pem)

    async def Enrol(self, request: pb.EnrolRequest, context: Any) -> pb.EnrolReply:  # noqa: N802
        """Signs a certificate request against a token."""
        try:
            wanted = pki.check_request(request.certificate_request_pem)
            async with self._one_at_a_time:
                certificate = await asyncio.to_thread(self._registrar.enrol, request.token, wanted)
        except IdentityError as error:
            status = error.status if isinstance(error, EnrolmentRefusedError) else grpc.StatusCode.INVALID_ARGUMENT
            LOG.warning("enrolment refused", why=error.what, peer=context.peer())
            name = error.name if isinstance(error, EnrolmentRefusedError) else ""
            await refuse(context, status, f"{error.what}; {error.mend}" if error.mend else error.what, name=name)
        LOG.info("enrolled", client=wanted.client_id)
        return pb.EnrolReply(
            certificate_pem=certificate,
            ca_certificate_pem=self._authority.ca_pem,
            client_id=wanted.client_id,
            server=self._server,
        )
