"""Joining a federation: from an address, a token and the CA's fingerprint to credentials in the client's folder.

The token is sent only to a server that has proved to hold a certificate of the CA whose fingerprint the operator gave:

1. the server's own certificate is fetched and trusted for one channel, over which the CA's certificate is asked for;
2. the CA's fingerprint is compared with the one given, and the server's certificate with the CA;
3. over a new channel, which trusts that CA alone, the token and the certificate request go out.

The private key is made here, is on disk before anything is asked for, and never leaves.
"""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from collabedit.client.connection import CALL_SECONDS, OPTIONS, Address, translate
from collabedit.client.diagnosis import diagnose, untimely
from collabedit.common import pki
from collabedit.common.credentials import CERTIFICATE_FILE, KEY_FILE, PRIVATE, Credentials, make_private
from collabedit.common.errors import CollabEditError, IdentityError, StateError, UsageError
from collabedit.common.files import write_durably
from collabedit.v1 import federation_pb2 as pb
from collabedit.v1 import federation_pb2_grpc as rpc

FETCH_SECONDS: Final = 10.0
NOT_SENT: Final = "the token was not sent: compare address and fingerprint with what the server's operator gave you"


@dataclass(frozen=True)
class Enrolled:
    """Who one is now: client id, role, the CA's fingerprint, the services' host:port, the certificate's end, number.

    fingerprint: of the certificate's public key, which other parties compare before they seal anything for it.
    """

    client_id: str
    role: str
    federation: str
    server: str
    until: datetime
    folder: Path
    serial: str
    fingerprint: str


def enrol(server: str, token: str, fingerprint: str, folder: Path, *, client_id: str | None = None) -> Enrolled:
    """Enrols with the federation whose enrolment port is at `server` (host:port); credentials go to `folder`.

    Safe to repeat: the same command after a lost answer gets the same certificate. client_id: None takes the one that
    the folder has, else this host's name. Raises IdentityError where the server is not the federation's, or refuses
    token or name; StateError where the folder holds the credentials of another federation; UnreachableError.
    """
    address, expected = Address.parse(server), parse_fingerprint(fingerprint)
    name = _check_folder(folder, expected, client_id)
    authority = _fetch_authority(address, expected)
    key = _own_key(folder)
    reply = _ask(address, authority, token, pki.create_request(key, name))
    certificate = _check_certificate(reply.certificate_pem, key, authority, name, address)
    services = _services(reply.server, address)
    Credentials(authority, pki.certificate_pem(certificate), pki.key_pem(key), services).save(folder)
    return identity(folder)


def identity(folder: Path) -> Enrolled:
    """Who the credentials in `folder` make one. Raises IdentityError where there are none."""
    held = Credentials.load(folder)
    certificate = pki.load_certificate(held.certificate_pem)
    client_id, role = pki.identity_of(certificate)
    federation = pki.ca_fingerprint(held.ca_pem)
    return Enrolled(
        client_id,
        role,
        federation,
        held.server,
        certificate.not_valid_after_utc,
        folder,
        str(certificate.serial_number),
        pki.key_fingerprint(certificate),
    )


def parse_fingerprint(text: str) -> str:
    """`sha256:…` from what a person pasted: colons between the bytes and capitals do not matter. Raises UsageError."""
    digits = re.sub(r"[\s:]", "", text.strip().lower().removeprefix("sha256:"))
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise UsageError(f'"{text[:100]}" is no fingerprint', mend="it reads sha256: and 64 hexadecimal digits")
    return f"sha256:{digits}"


def host_name() -> str:
    """This host's name as a client id."""
    name = re.sub(r"[^a-z0-9._-]+", "-", socket.gethostname().lower()).strip("._-")
    return name[:64] or "client"


def _check_folder(folder: Path, expected: str, client_id: str | None) -> str:
    """The client id to ask for. Raises StateError where the folder belongs to another federation or client."""
    if client_id is not None:
        pki.check_client_id(client_id)
    if not (folder / CERTIFICATE_FILE).exists():
        return client_id or host_name()
    held = identity(folder)
    elsewhere = "enrol with another --state, which keeps both"
    if held.federation != expected:
        raise StateError(f"{folder}: the credentials there are for federation {held.federation}", mend=elsewhere)
    if client_id not in (None, held.client_id):
        raise StateError(f"{folder}: the credentials there are those of {held.client_id}", mend=elsewhere)
    return held.client_id


def _fetch_authority(address: Address, expected: str) -> bytes:
    """The CA's certificate, PEM, of the server at `address`. Raises IdentityError unless it is the one expected."""
    leaf = _fetch_leaf(address)
    with _channel(address, leaf) as channel:
        try:
            reply = rpc.EnrolmentStub(channel).GetAuthority(pb.GetAuthorityRequest(), timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            raise _explained(error, address, leaf) from error
    found = pki.ca_fingerprint(reply.ca_certificate_pem)
    if found != expected:
        raise IdentityError(f"the CA of {address} is {found}, not {expected}", mend=NOT_SENT)
    authority = pki.load_certificate(reply.ca_certificate_pem)
    if not pki.issued_by(pki.load_certificate(leaf), authority):
        raise IdentityError(f"the certificate of {address} was not issued by the federation's CA", mend=NOT_SENT)
    return pki.certificate_pem(authority)


def _fetch_leaf(address: Address) -> bytes:
    try:
        return ssl.get_server_certificate((address.host, address.port), timeout=FETCH_SECONDS).encode()
    except ssl.SSLError as error:
        raise IdentityError(
            f"{address} does not speak TLS", mend="give the server's enrolment port, 50052 unless set otherwise"
        ) from error
    except OSError as error:
        raise diagnose(address.host, address.port, str(address), None) from error


def _channel(address: Address, root_pem: bytes) -> grpc.Channel:
    return grpc.secure_channel(str(address), grpc.ssl_channel_credentials(root_pem), options=OPTIONS)


def _explained(error: grpc.RpcError, address: Address, leaf: bytes) -> CollabEditError:
    """What went wrong on a channel without a certificate of one's own."""
    if error.code() is not grpc.StatusCode.UNAVAILABLE:
        return translate(error, address)
    certificate = pki.load_certificate(leaf)
    names = pki.server_names(certificate)
    if not _is_named(address.host, names):
        return IdentityError(
            f"the certificate of {address} is for {', '.join(names) or 'no name'}",
            mend=f"use one of these names, or start the server with --advertise {address.host}",
        )
    wrong = untimely(certificate, f"the certificate of {address}", mend="restart the server, which makes a new one")
    return wrong or IdentityError(
        f"{address} is not the enrolment port of a federation ({' '.join((error.details() or '').split())[:160]})",
        mend="give the server's enrolment port, 50052 unless set otherwise",
    )


def _is_named(host: str, names: tuple[str, ...]) -> bool:
    try:
        return str(ip_address(host)) in names
    except ValueError:
        return host.lower() in (name.lower() for name in names)


def _own_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    """The key in the folder, or a new one, which is on disk before anyone signs it."""
    file = folder / KEY_FILE
    if file.exists():
        return pki.load_key(file.read_bytes())
    key = pki.new_key()
    make_private(folder)
    write_durably(file, pki.key_pem(key), mode=PRIVATE)
    return key


def _ask(address: Address, authority: bytes, token: str, request: bytes) -> pb.EnrolReply:
    with _channel(address, authority) as channel:
        try:
            message = pb.EnrolRequest(token=token, certificate_request_pem=request)
            reply: pb.EnrolReply = rpc.EnrolmentStub(channel).Enrol(message, timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            raise _explained(error, address, _fetch_leaf(address)) from error
    return reply


def _check_certificate(
    pem: bytes, key: ec.EllipticCurvePrivateKey, authority: bytes, name: str, address: Address
) -> x509.Certificate:
    """The certificate that the server gave, if it is what was asked for."""
    certificate = pki.load_certificate(pem)
    issued = pki.issued_by(certificate, pki.load_certificate(authority))
    if not issued or not pki.matches(key, certificate) or pki.identity_of(certificate)[0] != name:
        raise IdentityError(f"{address} answered with a certificate that is not the one asked for")
    return certificate


def _services(told: str, address: Address) -> str:
    """host:port of the federation's services; where the server names no host, it is the one that was enrolled at."""
    host, _, port = told.rpartition(":")
    return str(Address.parse(told if host else f"{Address(address.host, 1)}".removesuffix("1") + port))
