"""How this server is trusted: its CA and certificate, tokens, and the command that a party runs to enrol."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import grpc

from collabedit.server.addresses import ListenAddress
from collabedit.server.authority import (
    ANY_ADDRESS,
    Authority,
    ServerIdentity,
    enrolment_command,
    hash_token,
    names_of_server,
    new_token,
)
from collabedit.server.config import ServerConfig
from collabedit.server.enrolment import EnrolmentService
from collabedit.server.listening import mutual_tls, server_tls
from collabedit.server.state_folder import PKI
from collabedit.server.store import Store

FIRST_TOKEN_MINUTES = 24 * 60


def now() -> datetime:
    """The time, aware."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Trust:
    """A federation's CA as a server uses it. enrol: where parties enrol, as the operator gave it."""

    authority: Authority
    identity: ServerIdentity
    store: Store
    enrol: ListenAddress
    advertise: tuple[str, ...]

    @classmethod
    def open(cls, config: ServerConfig, store: Store, listen: ListenAddress, enrol: ListenAddress) -> Trust:
        """Makes the CA and the server's certificate at the first start. Raises StateError for files that do not fit."""
        authority = Authority.open(config.state / PKI, now())
        names = names_of_server((listen.host, enrol.host), config.advertise)
        return cls(authority, authority.server_identity(names, now()), store, enrol, config.advertise)

    @property
    def mutual(self) -> grpc.ServerCredentials:
        """Both sides prove who they are."""
        return mutual_tls(self.identity.key_pem, self.identity.certificate_pem, self.authority.ca_pem)

    @property
    def one_sided(self) -> grpc.ServerCredentials:
        """The server alone proves who it is."""
        return server_tls(self.identity.key_pem, self.identity.certificate_pem)

    def enrolment(self, port: int) -> EnrolmentService:
        """The service of the enrolment port; port: that of the federation's services, at the host enrolled at."""
        return EnrolmentService(self.authority, self.store, f":{port}", now)

    def note_admin(self, port: int) -> None:
        """Credentials for an administrator on this host."""
        self.authority.admin_credentials(f"localhost:{port}", now())

    def issue(self, role: str, uses: int, minutes: int, *, port: int | None = None) -> tuple[str, str]:
        """A new token and the command that uses it; port: the one bound, where the operator left it open."""
        token = new_token()
        self.store.add_token(hash_token(token), role, uses, (now() + timedelta(minutes=minutes)).timestamp())
        return token, enrolment_command(f"{self._host}:{port or self.enrol.port}", token, self.authority.fingerprint)

    @property
    def awaits_parties(self) -> bool:
        """Nobody has enrolled, and somebody could."""
        return self.authority.signs and not self.store.clients()

    @property
    def _host(self) -> str:
        if self.advertise:
            return self.advertise[0]
        return socket.gethostname() if self.enrol.host.strip("[]") in ANY_ADDRESS else self.enrol.host
