"""Certificates: what is in them, what is signed, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from collabedit.common import pki
from collabedit.common.errors import IdentityError, UsageError

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
CA = pki.create_authority("a federation", NOW)


def request_of(key: object, *names: str) -> bytes:
    """A request signed by any kind of key, for any names."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM)


def extension(certificate: x509.Certificate, kind: type[Any]) -> Any:
    """The extension's value."""
    return certificate.extensions.get_extension_for_class(kind).value


def test_the_ca() -> None:
    """Ten years, may sign leaves alone and nothing else, and signs itself."""
    made = CA.certificate
    basic = extension(made, x509.BasicConstraints)
    usage = extension(made, x509.KeyUsage)
    assert (basic.ca, basic.path_length) == (True, 0)
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)
    assert timedelta(days=3652) < made.not_valid_after_utc - NOW < timedelta(days=3654)
    assert pki.issued_by(made, made)
    assert extension(made, x509.SubjectKeyIdentifier)


@pytest.mark.parametrize("purpose", [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
def test_the_leaves(purpose: x509.ObjectIdentifier) -> None:
    """A year, one purpose each, no CA, identified with the key that signed them."""
    if purpose is ExtendedKeyUsageOID.SERVER_AUTH:
        made = pki.issue_server(CA, ["edits.example.org", "127.0.0.1", "::1"], NOW).certificate
        assert pki.server_names(made) == ("edits.example.org", "127.0.0.1", "::1")
    else:
        made = pki.issue_client(CA, "alice", "admin", NOW).certificate
        assert pki.identity_of(made) == ("alice", "admin")
    assert not extension(made, x509.BasicConstraints).ca
    assert list(extension(made, x509.ExtendedKeyUsage)) == [purpose]
    assert extension(made, x509.KeyUsage).digital_signature
    own = extension(CA.certificate, x509.SubjectKeyIdentifier).digest
    assert extension(made, x509.AuthorityKeyIdentifier).key_identifier == own
    assert timedelta(days=364) < made.not_valid_after_utc - NOW < timedelta(days=366)
    assert made.not_valid_before_utc < NOW
    assert pki.issued_by(made, CA.certificate)
    assert not pki.issued_by(made, pki.create_authority("another", NOW).certificate)


def test_no_leaf_outlives_its_ca() -> None:
    """Near the CA's end, certificates end with it."""
    late = NOW + timedelta(days=3600)
    assert (
        pki.issue_client(CA, "a", "client", late).certificate.not_valid_after_utc == CA.certificate.not_valid_after_utc
    )


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 3072),
    ],
)
def test_strong_keys_are_signed(key: object) -> None:
    """And of the request nothing counts but name and key: one that asks to be a CA is none."""
    request = pki.check_request(request_of(key, "alice"))
    made = pki.sign_request(CA, request, "client", NOW)
    assert pki.identity_of(made) == ("alice", "client")
    assert not extension(made, x509.BasicConstraints).ca


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP224R1()),
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP521R1()),
    ],
)
def test_other_keys_are_not(key: object) -> None:
    """Weak ones, and curves that not every TLS library takes."""
    with pytest.raises(IdentityError, match="not strong enough"):
        pki.check_request(request_of(key, "alice"))


@pytest.mark.parametrize(
    "names", [(), ("a", "b"), ("Alice",), ("a b",), ("../a",), ("-a",), ("a\n",), ("x" * 64 + "y",)]
)
def test_requests_must_name_one_client(names: tuple[str, ...]) -> None:
    """One common name, and it is a client id."""
    try:
        pem = request_of(pki.new_key(), *names)
    except ValueError:
        return  # not even X.509 takes it
    with pytest.raises(IdentityError):
        pki.check_request(pem)


def test_a_request_must_be_signed_by_its_own_key() -> None:
    """One flipped bit in the signature, and it is refused."""
    request = x509.load_pem_x509_csr(pki.create_request(pki.new_key(), "alice"))
    der = bytearray(request.public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(IdentityError, match="not signed by its own key"):
        pki.check_request(forged)


@given(st.binary(max_size=200))
def test_junk_is_refused_in_one_line(data: bytes) -> None:
    """Whatever bytes come: IdentityError, no traceback."""
    for read in (pki.check_request, pki.load_certificate, pki.load_key, pki.ca_fingerprint):
        with pytest.raises(IdentityError) as caught:
            read(data)
        assert "\n" not in caught.value.what


def test_certificates_that_end_soon() -> None:
    """Within thirty days, or ended."""
    made = pki.issue_client(CA, "alice", "client", NOW).certificate
    assert not pki.expires_soon(made, NOW + timedelta(days=330))
    assert pki.expires_soon(made, NOW + timedelta(days=340))
    assert pki.expires_soon(made, NOW + timedelta(days=400))


def test_the_fingerprint_is_openssls() -> None:
    """SHA-256 of the DER, as `openssl x509 -fingerprint -sha256` shows it, less the colons."""
    assert pki.ca_fingerprint(CA.certificate_pem) == f"sha256:{CA.certificate.fingerprint(hashes.SHA256()).hex()}"


@pytest.mark.parametrize("name", ["", "a b", "ä.org", "http://a", "-a", "a..b"])
def test_names_that_are_no_hosts(name: str) -> None:
    """A server's certificate is made for names and addresses alone."""
    with pytest.raises(UsageError, match="no host name"):
        pki.issue_server(CA, ["localhost", name], NOW)


def test_keys_are_not_shown() -> None:
    """Printing a key pair does not show the key."""
    assert "key=" not in repr(CA)
