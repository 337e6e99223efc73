"""A federation key on its way from one party to another: sealed to the certificate of the one, signed by the other.

HPKE (RFC 9180, base mode) to the public key of the recipient's client certificate, with epoch, federation, recipient
and sender as its `info`; an ECDSA signature of the sender over all of it. Whoever carries the file can neither read nor
change it. Pure: bytes in, bytes out.

Both certificates are believed because the federation's CA signed them. Who holds the CA's key can make a certificate
in a party's name: `fingerprint` is for people to compare where that matters (docs/explanation/threat-model.md).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from collabedit.client.federation_key import HeldKey
from collabedit.common import pki
from collabedit.common.blinding import FederationKey
from collabedit.common.credentials import Credentials
from collabedit.common.errors import BadFileError, IdentityError, MismatchError

FORM: Final = "collabedit-sealed-key-1"
LARGEST: Final = 64 << 10  # bytes of a sealed file
HEX: Final = r"^([0-9a-f]{2})+$"
KEMS: Final = {"secp256r1": KEM.P256, "secp384r1": KEM.P384}


@dataclass(frozen=True)
class Party:
    """Whom a certificate names, and `sha256:…` of its public key, which renewing it does not change."""

    client_id: str
    fingerprint: str


class SealedKey(BaseModel):
    """The file. recipient: a client id. sender: its certificate, PEM. sealed, signature: hexadecimal."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: Literal["collabedit-sealed-key-1"]
    federation: str
    epoch: int = Field(ge=1)
    recipient: str
    sender: str
    sealed: str = Field(pattern=HEX)
    signature: str = Field(default="", pattern=r"^([0-9a-f]{2})*$")

    @property
    def info(self) -> bytes:
        """What the seal is bound to; no two lists of values have the same bytes."""
        return json.dumps([self.form, self.federation, self.epoch, self.recipient, self.sender]).encode()

    @property
    def signed(self) -> bytes:
        """What the sender signs: everything but the signature."""
        return json.dumps([*self.model_dump(exclude={"signature"}).values()]).encode()


def seal(held: HeldKey, certificate_pem: bytes, own: Credentials, now: datetime) -> tuple[bytes, Party]:
    """The key for the party with this certificate, as the bytes of a file, and who that is.

    Raises IdentityError for a certificate that the federation's CA has not signed, that has ended, is no client's, or
    has a key that nothing can be sealed to; MismatchError where the key is another federation's than `own`.
    """
    federation = _same_federation(held, own)
    certificate, recipient = _client(certificate_pem, own)
    if certificate.not_valid_after_utc <= now:
        raise IdentityError(
            f"the certificate of {recipient.client_id} ended on {certificate.not_valid_after_utc:%Y-%m-%d}",
            mend=f"ask {recipient.client_id} for the present one, client.pem in the credentials folder",
        )
    public = certificate.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name not in KEMS:
        raise IdentityError(
            f"the certificate of {recipient.client_id} has no key on P-256 or P-384, and nothing can be sealed to it",
            mend="let it enrol with `collab pki enrol`, or carry the key's file over a safe way",
        )
    unsealed = SealedKey(
        form=FORM,
        federation=federation,
        epoch=held.key.epoch,
        recipient=recipient.client_id,
        sender=pki.certificate_pem(pki.load_certificate(own.certificate_pem)).decode(),
        sealed="00",
    )
    sealed = _suite(public).encrypt(held.key.secret, public, info=unsealed.info)
    return _signed(unsealed.model_copy(update={"sealed": sealed.hex()}), own), recipient


def unseal(file: bytes, own: Credentials) -> tuple[HeldKey, Party]:
    """The key in a sealed file, and who sealed it.

    Raises BadFileError for bytes that are no sealed key or were changed; MismatchError for another federation's;
    IdentityError for another recipient's, or a sender that is no client of the federation.
    """
    try:
        said = SealedKey.model_validate_json(file[:LARGEST])
    except ValidationError as error:
        raise BadFileError("not a sealed federation key", mend="ask for what `federation-key seal` wrote") from error
    federation = pki.ca_fingerprint(own.ca_pem)
    client_id, _ = pki.identity_of(pki.load_certificate(own.certificate_pem))
    if said.federation != federation:
        raise MismatchError(
            f"the key is of the federation {said.federation}, this host's is {federation}",
            mend="open it with the --state of the client that is in that federation",
        )
    if said.recipient != client_id:
        raise IdentityError(
            f"the key is sealed for {said.recipient}; this host is {client_id}",
            mend=f"ask for one that is sealed for {client_id}",
        )
    certificate, sender = _client(said.sender.encode(), own)
    _check_signature(said, certificate)
    key = pki.load_key(own.key_pem)
    try:
        secret = _suite(key.public_key()).decrypt(bytes.fromhex(said.sealed), key, info=said.info)
    except (InvalidTag, ValueError) as error:
        raise BadFileError(
            f"sealed for another key than the one that {client_id} has on this host",
            mend=f"give {sender.client_id} the present client.pem of this host's credentials folder",
        ) from error
    return HeldKey(FederationKey(said.epoch, secret), federation), sender


def party_of(certificate: x509.Certificate) -> Party:
    """Whom a client's certificate names, with the fingerprint of its key. Raises IdentityError where it names none."""
    return Party(pki.identity_of(certificate)[0], pki.key_fingerprint(certificate))


def _client(pem: bytes, own: Credentials) -> tuple[x509.Certificate, Party]:
    """A certificate that the federation's CA signed for a client. Raises IdentityError for any other."""
    certificate = pki.load_certificate(pem)
    if not pki.issued_by(certificate, pki.load_certificate(own.ca_pem)):
        raise IdentityError(
            "the certificate is not of this federation: its CA has not signed it",
            mend="take the file client.pem of the other party's credentials folder",
        )
    client_id, role = pki.identity_of(certificate)
    if role != "client":
        raise IdentityError(
            f"{client_id} is {role} of the federation, no client",
            mend="the key is for clients alone: who runs the server must not have it",
        )
    return certificate, party_of(certificate)


def _same_federation(held: HeldKey, own: Credentials) -> str:
    federation = pki.ca_fingerprint(own.ca_pem)
    if held.federation != federation:
        raise MismatchError(
            f"the key is of the federation {held.federation or 'without a CA'}, the credentials are of {federation}",
            mend="give the --state of the client whose key it is, or make one on a host that has enrolled",
        )
    return federation


def _signed(said: SealedKey, own: Credentials) -> bytes:
    signature = pki.load_key(own.key_pem).sign(said.signed, ec.ECDSA(hashes.SHA256()))
    return said.model_copy(update={"signature": signature.hex()}).model_dump_json(indent=1).encode() + b"\n"


def _check_signature(said: SealedKey, certificate: x509.Certificate) -> None:
    public = certificate.public_key()
    try:
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise InvalidSignature
        public.verify(bytes.fromhex(said.signature), said.signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise BadFileError(
            "changed since it was sealed: the sender's signature does not hold", mend="ask for the file again"
        ) from error


def _suite(public: ec.EllipticCurvePublicKey) -> Suite:
    return Suite(KEMS[public.curve.name], KDF.HKDF_SHA256, AEAD.AES_256_GCM)
