"""The federation's certificates: its CA, the server's, the clients', and the requests that clients make.

Pure: bytes and times in, bytes out; files are the callers'. The common name of a client's certificate is the client's
id, its organisational unit the role. Keys are made where they are used and never travel.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal, get_args

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from collabedit.common.errors import IdentityError, UsageError

Role = Literal["client", "admin", "observer"]

ROLES: Final[tuple[Role, ...]] = get_args(Role)
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

# What reading a stranger's bytes as a request may raise.
UNREADABLE: Final = (
    ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion, x509.UnsupportedGeneralNameType
)  # fmt: skip
CA_DAYS: Final = 3653
LEAF_DAYS: Final = 365
RENEW_DAYS: Final = 30
SKEW: Final = timedelta(minutes=5)  # clocks of two hosts differ
CLIENT_ID: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
HOST_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
LEAST_RSA_BITS: Final = 3072


@dataclass(frozen=True)
class KeyPair:
    """A private key and the certificate of its public half."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)
    certificate: x509.Certificate

    @property
    def certificate_pem(self) -> bytes:
        """The certificate as PEM."""
        return certificate_pem(self.certificate)

    @property
    def key_pem(self) -> bytes:
        """The private key as unencrypted PKCS#8 PEM: for a file of mode 0600."""
        return key_pem(self.key)


@dataclass(frozen=True)
class Request:
    """A certificate request whose signature, name and key have been checked."""

    client_id: str
    public_key: PublicKey


def check_client_id(name: str) -> str:
    """Returns `name`; raises IdentityError unless it is 1 to 64 of [a-z0-9._-], a letter or digit first."""
    if not CLIENT_ID.fullmatch(name):
        raise IdentityError(
            f'"{name[:80]}" is no client id',
            mend="take 1 to 64 of a-z, 0-9, dot, hyphen and underscore, beginning with a letter or a digit",
        )
    return name


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh private key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as unencrypted PKCS#8 PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """The elliptic-curve private key in `pem`. Raises IdentityError where there is none."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise IdentityError("no private key in PEM form without a password") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise IdentityError("the private key is not on an elliptic curve", mend="make one with `collab pki`")
    return key


def load_certificate(pem: bytes) -> x509.Certificate:
    """The first certificate in `pem`. Raises IdentityError where there is none."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise IdentityError("no certificate in PEM form") from error


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """A certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def ca_fingerprint(pem: bytes) -> str:
    """`sha256:…` (hex) over the DER of the first certificate in `pem`: what two people read to each other."""
    return f"sha256:{hashlib.sha256(load_certificate(pem).public_bytes(serialization.Encoding.DER)).hexdigest()}"


def create_authority(name: str, now: datetime) -> KeyPair:
    """A new self-signed CA for ten years from `now` (aware), which may sign leaves only."""
    key = new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usage = _usage(digital_signature=False, key_cert_sign=True, crl_sign=True)
    builder = (
        _builder(subject, subject, key.public_key(), now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return KeyPair(key, builder.sign(key, hashes.SHA256()))


def issue_server(authority: KeyPair, names: Sequence[str], now: datetime) -> KeyPair:
    """A key and a certificate for a server that answers to `names` (host names and addresses), for a year.

    Raises UsageError for a name that is neither.
    """
    key = new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    builder = _leaf(authority, subject, key.public_key(), ExtendedKeyUsageOID.SERVER_AUTH, now).add_extension(
        x509.SubjectAlternativeName([_alternative(name) for name in dict.fromkeys(names)]), critical=False
    )
    return KeyPair(key, builder.sign(authority.key, hashes.SHA256()))


def issue_client(authority: KeyPair, client_id: str, role: Role, now: datetime) -> KeyPair:
    """A key and a certificate for a client, for a year: for CAs that are run by hand and for the server's own admin."""
    key = new_key()
    request = Request(check_client_id(client_id), key.public_key())
    return KeyPair(key, sign_request(authority, request, role, now))


def create_request(key: ec.EllipticCurvePrivateKey, client_id: str) -> bytes:
    """A PKCS#10 request, PEM, for `client_id`, signed by `key`. Raises IdentityError for a bad id."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, check_client_id(client_id))])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def check_request(pem: bytes) -> Request:
    """The name and key of a PKCS#10 request, PEM.

    Raises IdentityError for a signature that does not hold, a name that is no client id, or a key other than
    EC P-256 or P-384, RSA of 3072 bits or more, or Ed25519. Whatever else the request asks for is not looked at.
    """
    try:
        request = x509.load_pem_x509_csr(pem)
        public_key = request.public_key()
        valid = request.is_signature_valid
        names = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except UNREADABLE as error:
        raise IdentityError("no certificate request in PEM form") from error
    if not valid:
        raise IdentityError("the certificate request is not signed by its own key")
    if len(names) != 1:
        raise IdentityError("the certificate request must name one client id as its common name")
    return Request(check_client_id(str(names[0].value)), _strong(public_key))


def sign_request(authority: KeyPair, request: Request, role: Role, now: datetime) -> x509.Certificate:
    """The certificate of a checked request, for a year; it says nothing but the client's id and role."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
            x509.NameAttribute(NameOID.COMMON_NAME, request.client_id),
        ]
    )
    builder = _leaf(authority, subject, request.public_key, ExtendedKeyUsageOID.CLIENT_AUTH, now)
    return builder.sign(authority.key, hashes.SHA256())


def issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether the authority's key signed the certificate."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def same_key(left: PublicKey, right: PublicKey) -> bool:
    """Whether two public keys are one key."""
    return _spki(left) == _spki(right)


def key_fingerprint(certificate: x509.Certificate) -> str:
    """`sha256:…` (hex) over the public key (DER), which renewing the certificate does not change."""
    return f"sha256:{hashlib.sha256(_spki(certificate.public_key())).hexdigest()}"


def matches(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> bool:
    """Whether the certificate was made for this private key."""
    return _spki(key.public_key()) == _spki(certificate.public_key())


def expires_soon(certificate: x509.Certificate, now: datetime, *, days: int = RENEW_DAYS) -> bool:
    """Whether the certificate ends within `days` of `now` (aware), or has ended."""
    return certificate.not_valid_after_utc - now < timedelta(days=days)


def server_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """The host names and addresses that a server's certificate is good for."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = (str(each) for each in extension.get_values_for_type(x509.IPAddress))
    return (*extension.get_values_for_type(x509.DNSName), *addresses)


def identity_of(certificate: x509.Certificate) -> tuple[str, Role]:
    """Client id and role that a client's certificate states. Raises IdentityError where it states none."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    units = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    said = str(units[0].value) if len(units) == 1 else ""
    role = next((each for each in ROLES if each == said), None)
    if len(names) != 1 or role is None:
        raise IdentityError("the certificate names no client id and role")
    return check_client_id(str(names[0].value)), role


def role_of(text: str) -> Role:
    """The role of that name; a name that is none is the least, "observer"."""
    return next((each for each in ROLES if each == text), "observer")


def _leaf(
    authority: KeyPair, subject: x509.Name, key: PublicKey, purpose: x509.ObjectIdentifier, now: datetime
) -> x509.CertificateBuilder:
    issuer = authority.certificate
    builder = _builder(subject, issuer.subject, key, now, LEAF_DAYS, latest=issuer.not_valid_after_utc)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(identifier, critical=False)
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, now: datetime, days: int, *, latest: datetime | None = None
) -> x509.CertificateBuilder:
    end = now + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(min(end, latest) if latest else end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, digital_signature: bool, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        if not HOST_NAME.fullmatch(name):
            raise UsageError(f'"{name}" is no host name and no address', mend="give names as DNS has them") from None
        return x509.DNSName(name)


def _strong(key: object) -> PublicKey:
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
        return key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= LEAST_RSA_BITS:
        return key
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    raise IdentityError(
        "the key of the certificate request is not strong enough",
        mend=f"take EC P-256 or P-384, Ed25519, or RSA of {LEAST_RSA_BITS} bits or more",
    )


def _spki(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
