"""Why a server cannot be had: gRPC says only that it is unavailable, so a bare TLS socket looks again."""

from __future__ import annotations

import socket
import ssl
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from time import sleep
from typing import Final

from cryptography import x509

from collabedit.common.credentials import Credentials
from collabedit.common.errors import CollabEditError, IdentityError, UnreachableError
from collabedit.common.pki import load_certificate

PROBE_SECONDS: Final = 3.0
GONE_SECONDS: Final = 1.0  # by then a server that was being killed is gone, and nobody listens
ENROL_AGAIN: Final = "enrol again with `collab pki enrol`"
SET_CLOCK: Final = "set this host's clock: certificates are the one thing that is compared with it"


def diagnose(host: str, port: int, address: str, credentials: Credentials | None, details: str = "") -> CollabEditError:
    """What keeps this client from the server at host:port; `address` is how the user writes it.

    Connects once, or twice with a pause of GONE_SECONDS; waits PROBE_SECONDS at most each time. details: what gRPC
    said, for the last resort.
    """
    try:
        if credentials is None:
            with socket.create_connection((host, port), timeout=PROBE_SECONDS) as plain:
                return _expects_tls(plain, host, address) or _lost(address, details)
        ended = _ended(address, credentials)
        if ended:
            return ended
        found = _look(host, port, address, credentials)
        if isinstance(found, _HungUpError):  # so does a server that is killed, on each of its addresses
            sleep(GONE_SECONDS)
            found = _look(host, port, address, credentials)
        return found or _lost(address, details)
    except socket.gaierror:
        return UnreachableError(f"{address}: no host of this name", mend="check --server")
    except TimeoutError:
        return UnreachableError(f"{address} does not answer", mend="check --server, the network and its firewalls")
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        return UnreachableError(
            f"nobody listens at {address} ({said})", mend="start collab-server there, or give its address as --server"
        )


class _HungUpError(IdentityError):
    """The server took the connection, and ended it when it saw the client's certificate."""


def _hung_up(address: str) -> IdentityError:
    return _HungUpError(
        f"{address} hangs up on this client's certificate: it is from another CA, or has ended", mend=ENROL_AGAIN
    )


def _lost(address: str, details: str) -> UnreachableError:
    said = f" ({' '.join(details.split())[:200]})" if details else ""
    return UnreachableError(f"the connection to {address} was lost{said}", mend="the server is starting: try again")


def _expects_tls(plain: socket.socket, host: str, address: str) -> CollabEditError | None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with suppress(ssl.SSLError, OSError), context.wrap_socket(plain, server_hostname=host):
        return IdentityError(f"{address} expects TLS, and this client speaks plaintext", mend="leave --insecure out")
    return None


def _look(host: str, port: int, address: str, credentials: Credentials) -> CollabEditError | None:
    with socket.create_connection((host, port), timeout=PROBE_SECONDS) as plain:
        return _handshake(plain, host, address, credentials)


def _handshake(plain: socket.socket, host: str, address: str, credentials: Credentials) -> CollabEditError | None:
    """What the TLS handshake says; None where it succeeds and the server goes on to speak."""
    try:
        context = _context(credentials)
    except ssl.SSLError as error:
        return IdentityError(f"the credentials for {address} are not usable: {error.reason}", mend=ENROL_AGAIN)
    try:
        # Under TLS 1.3 a refusal of the client's certificate comes after the handshake, as an alert or as silence.
        with context.wrap_socket(plain, server_hostname=host) as secure:
            return None if secure.recv(1) else _hung_up(address)
    except ConnectionResetError:
        return _hung_up(address)
    except ssl.SSLCertVerificationError as error:
        return _distrusted(address, error)
    except ssl.SSLError as error:
        return _alerted(address, error.reason or str(error))


def _context(credentials: Credentials) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=credentials.ca_pem.decode("ascii"))
    context.set_alpn_protocols(["h2"])
    with tempfile.TemporaryDirectory(prefix="collab-") as folder:  # the ssl module reads keys from files alone
        chain = Path(folder) / "chain.pem"
        chain.touch(mode=0o600)
        chain.write_bytes(credentials.key_pem + credentials.certificate_pem)
        context.load_cert_chain(chain)
    return context


def _ended(address: str, credentials: Credentials) -> IdentityError | None:
    return untimely(load_certificate(credentials.certificate_pem), f"the certificate for {address}", mend=ENROL_AGAIN)


def untimely(certificate: x509.Certificate, what: str, *, mend: str) -> IdentityError | None:
    """What is wrong with a certificate by this host's clock, which the error tells; None where it counts now.

    mend: for one that has ended; for one that has not begun it is the clock that is wrong.
    """
    now = datetime.now(UTC)
    clock = f"this host's clock says {now:%Y-%m-%d %H:%M} UTC"
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begins:
        return IdentityError(f"{what} begins on {begins:%Y-%m-%d %H:%M} UTC; {clock}", mend=SET_CLOCK)
    if now > ends:
        return IdentityError(f"{what} ended on {ends:%Y-%m-%d %H:%M} UTC; {clock}", mend=f"{mend}, or set the clock")
    return None


def _distrusted(address: str, error: ssl.SSLCertVerificationError) -> CollabEditError:
    if "mismatch" in error.verify_message.lower() or "not valid for" in error.verify_message.lower():
        return IdentityError(
            f"the certificate of {address} is for other host names",
            mend="use a name that it is for, or start the server with --advertise and this name",
        )
    clock = f"by this host's clock, which says {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    if "expired" in error.verify_message.lower():
        mend = "restart the server, which makes a new one, or set the clock"
        return IdentityError(f"the certificate of {address} has ended {clock}", mend=mend)
    if "not yet valid" in error.verify_message.lower():
        return IdentityError(f"the certificate of {address} has not begun {clock}", mend=SET_CLOCK)
    return IdentityError(
        f"{address} is not the server of this client's federation: its certificate is from another CA",
        mend="check --server; to change the federation, enrol with it in another --state folder",
    )


def _alerted(address: str, reason: str) -> CollabEditError:
    if "WRONG_VERSION" in reason or "RECORD_LAYER" in reason or "UNEXPECTED_EOF" in reason:
        return UnreachableError(
            f"{address} does not speak TLS", mend="check the port; a server run with --insecure needs it here too"
        )
    if "EXPIRED" in reason:
        what = f"{address} refuses this client's certificate: by the server's clock it has ended, or has not begun"
        return IdentityError(what, mend=f"compare the clocks of both hosts; {ENROL_AGAIN}")
    return IdentityError(
        f"{address} does not accept this client's certificate ({reason.lower().replace('_', ' ')})",
        mend="the certificate is from another federation's CA: enrol with this one in a --state folder of its own",
    )
