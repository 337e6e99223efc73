"""The federation's CA as the server keeps it: made at the first start, loaded at every later one.

pki/ca.pem, ca.key           the CA; without ca.key (kept elsewhere) certificates come from `collab pki` by hand
pki/server.pem, server.key   the server's certificate, made anew when its names change or it nears its end
pki/admin/                   credentials of an administrator on this host, for `collab pki token` and the like
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from collabedit.common import pki
from collabedit.common.credentials import CA_FILE, PRIVATE, Credentials, write_server
from collabedit.common.errors import IdentityError, StateError
from collabedit.common.files import write_durably

CA_KEY_FILE: Final = "ca.key"
SERVER_FILE: Final = "server.pem"
SERVER_KEY_FILE: Final = "server.key"
ADMIN_FOLDER: Final = "admin"
ADMIN_ID: Final = "admin"
LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "::1")
ANY_ADDRESS: Final = frozenset({"", "0.0.0.0", "::", "*"})  # noqa: S104
TOKEN_BYTES: Final = 16
TOKEN_GROUP: Final = 4


@dataclass(frozen=True)
class ServerIdentity:
    """The server's private key and certificate, PEM."""

    key_pem: bytes = field(repr=False)
    certificate_pem: bytes


class Authority:
    """The CA in one folder."""

    def __init__(self, folder: Path, certificate_pem: bytes, signer: pki.KeyPair | None, *, new: bool) -> None:
        self.folder = folder
        self.ca_pem = certificate_pem
        self.new = new
        self._signer = signer

    @classmethod
    def open(cls, folder: Path, now: datetime) -> Authority:
        """Loads the CA, or makes one where the folder has none. Raises StateError for files that do not fit."""
        if not (folder / CA_FILE).exists():
            return cls._create(folder, now)
        try:
            pem = (folder / CA_FILE).read_bytes()
            certificate = pki.load_certificate(pem)
            if not (folder / CA_KEY_FILE).exists():
                return cls(folder, pem, None, new=False)
            key = pki.load_key((folder / CA_KEY_FILE).read_bytes())
        except (OSError, IdentityError) as error:
            raise StateError(f"{folder}: the CA cannot be read: {error}", mend="restore it from a backup") from error
        if not pki.matches(key, certificate):
            raise StateError(f"{folder}: {CA_KEY_FILE} is not the key of {CA_FILE}", mend="restore both from a backup")
        return cls(folder, pem, pki.KeyPair(key, certificate), new=False)

    @classmethod
    def _create(cls, folder: Path, now: datetime) -> Authority:
        made = pki.create_authority(f"collabedit federation {secrets.token_hex(4)}", now)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_durably(folder / CA_KEY_FILE, made.key_pem, mode=PRIVATE)
        write_durably(folder / CA_FILE, made.certificate_pem)
        return cls(folder, made.certificate_pem, made, new=True)

    @property
    def fingerprint(self) -> str:
        """`sha256:…` of the CA's certificate: the federation's identity."""
        return pki.ca_fingerprint(self.ca_pem)

    @property
    def signs(self) -> bool:
        """Whether the CA's key is here, so that parties can enrol."""
        return self._signer is not None

    @property
    def signer(self) -> pki.KeyPair:
        """The CA's key and certificate. Raises StateError where the key is kept elsewhere."""
        if self._signer is None:
            raise StateError(
                f"{self.folder}: no {CA_KEY_FILE}, so nothing can be signed here",
                mend="make certificates with `collab pki server` and `collab pki client` where the CA's key is",
            )
        return self._signer

    def server_identity(self, names: Sequence[str], now: datetime) -> ServerIdentity:
        """The server's certificate for `names`: the one on disk while it is good, else a new one.

        Raises StateError where a new one is needed and the CA's key is not here.
        """
        held = self._held_identity()
        if held and self._serves(held, names, now):
            return held
        made = pki.issue_server(self.signer, names, now)
        save_server(self.folder, self.ca_pem, made)
        return ServerIdentity(made.key_pem, made.certificate_pem)

    def admin_credentials(self, server: str, now: datetime) -> Path:
        """The folder with an administrator's credentials for this host; server: host:port, as seen from here."""
        folder = self.folder / ADMIN_FOLDER
        if self._admin_is_good(folder, now) or not self.signs:
            folder.mkdir(exist_ok=True, mode=0o700)
            write_server(folder, server)
            return folder
        made = pki.issue_client(self.signer, ADMIN_ID, "admin", now)
        Credentials(self.ca_pem, made.certificate_pem, made.key_pem, server).save(folder)
        return folder

    def _held_identity(self) -> ServerIdentity | None:
        try:
            files = (self.folder / SERVER_KEY_FILE, self.folder / SERVER_FILE)
            key, certificate = (file.read_bytes() for file in files)
            if not pki.matches(pki.load_key(key), pki.load_certificate(certificate)):
                return None
        except (OSError, IdentityError):
            return None
        return ServerIdentity(key, certificate)

    def _serves(self, held: ServerIdentity, names: Sequence[str], now: datetime) -> bool:
        certificate = pki.load_certificate(held.certificate_pem)
        if not pki.issued_by(certificate, pki.load_certificate(self.ca_pem)):
            return False
        if not self.signs:  # made by hand: as good as it is
            return certificate.not_valid_after_utc > now
        return set(names) <= set(pki.server_names(certificate)) and not pki.expires_soon(certificate, now)

    def _admin_is_good(self, folder: Path, now: datetime) -> bool:
        try:
            held = Credentials.load(folder)
            certificate = pki.load_certificate(held.certificate_pem)
            fits = pki.matches(pki.load_key(held.key_pem), certificate)
        except (IdentityError, StateError):
            return False
        return fits and held.ca_pem == self.ca_pem and not pki.expires_soon(certificate, now)


def save_server(folder: Path, ca_pem: bytes, made: pki.KeyPair) -> None:
    """Writes a server's key and certificate, and the CA's certificate beside them, durably.

    Raises StateError where the folder is that of another CA.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    ca = folder / CA_FILE
    if ca.exists() and ca.read_bytes() != ca_pem:
        raise StateError(f"{folder}: the certificates there are from another CA", mend="take another folder")
    write_durably(folder / SERVER_KEY_FILE, made.key_pem, mode=PRIVATE)
    write_durably(folder / SERVER_FILE, made.certificate_pem)
    if not ca.exists():
        write_durably(ca, ca_pem)


def names_of_server(listen: Iterable[str], advertise: Iterable[str]) -> tuple[str, ...]:
    """Host names and addresses that the server's certificate must be good for.

    listen: hosts that ports are opened on. advertise: what the operator adds. This host's own name is in it.
    """
    named = [host.strip("[]") for host in listen]
    every = (*advertise, *LOCAL_NAMES, socket.gethostname(), *named)
    return tuple(dict.fromkeys(name for name in every if name not in ANY_ADDRESS))


def new_token() -> str:
    """An enrolment token: 128 random bits as 26 base32 characters in groups of four."""
    text = base64.b32encode(secrets.token_bytes(TOKEN_BYTES)).decode("ascii").rstrip("=")
    return "-".join(text[at : at + TOKEN_GROUP] for at in range(0, len(text), TOKEN_GROUP))


def hash_token(token: str) -> str:
    """The SHA-256 (hex) under which a token is stored and looked up; case, spaces and hyphens do not count."""
    return hashlib.sha256(re.sub(r"[\s-]", "", token).upper().encode()).hexdigest()


def enrolment_command(server: str, token: str, fingerprint: str) -> str:
    """What a party runs to enrol. server: host:port of the enrolment port, as the party sees it."""
    return f"collab pki enrol --server {server} --token {token} --ca-fingerprint {fingerprint}"
