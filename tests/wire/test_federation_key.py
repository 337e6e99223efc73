"""The federation key: on a party's host, and on its way to another party."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from collabedit.cli.pki import pki as command
from collabedit.client import federation_key, sealed_key
from collabedit.client.federation_key import KEY_FILE, HeldKey, load_federation_key
from collabedit.client.sealed_key import SealedKey, seal, unseal
from collabedit.common import pki
from collabedit.common.blinding import KEY_BYTES, FederationKey
from collabedit.common.credentials import Credentials
from collabedit.common.errors import BadFileError, CollabEditError, IdentityError, MismatchError, StateError, UsageError

NOW = datetime.now(UTC)
CA = pki.create_authority("federation", NOW)
SECRET = bytes(range(KEY_BYTES))


def party(name: str, *, ca: pki.KeyPair = CA, role: pki.Role = "client", made: datetime = NOW) -> Credentials:
    """The credentials of a party, with a new key."""
    leaf = pki.issue_client(ca, name, role, made)
    return Credentials(ca.certificate_pem, leaf.certificate_pem, leaf.key_pem, "localhost:1")


ALICE, BOB = party("alice"), party("bob")
HELD = HeldKey(FederationKey(2, SECRET), pki.ca_fingerprint(CA.certificate_pem))
SEALED = seal(HELD, BOB.certificate_pem, ALICE, NOW)[0]


def run(*arguments: object) -> Result:
    """One command in this process; its error is raised."""
    result = CliRunner().invoke(command, ["federation-key", *(str(each) for each in arguments)], catch_exceptions=True)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def host(folder: Path, credentials: Credentials) -> Path:
    """A client's state folder."""
    credentials.save(folder / "credentials")
    return folder


# ---- sealed


def test_a_sealed_key_is_opened_by_its_recipient() -> None:
    """The same key, of the same federation, and who sent it; the secret is not in the file."""
    held, sender = unseal(SEALED, BOB)
    assert held == HELD
    assert sender.client_id == "alice"
    assert sender.fingerprint == pki.key_fingerprint(pki.load_certificate(ALICE.certificate_pem))
    assert SECRET.hex() not in SEALED.decode()
    assert seal(HELD, BOB.certificate_pem, ALICE, NOW)[0] != SEALED


def test_on_p_384() -> None:
    """Keys that a party brought itself are on other curves."""
    key = ec.generate_private_key(ec.SECP384R1())
    request = pki.check_request(pki.create_request(key, "carol"))
    certificate = pki.certificate_pem(pki.sign_request(CA, request, "client", NOW))
    carol = Credentials(CA.certificate_pem, certificate, pki.key_pem(key), "localhost:1")
    assert unseal(seal(HELD, certificate, ALICE, NOW)[0], carol)[0] == HELD
    assert unseal(seal(HELD, BOB.certificate_pem, carol, NOW)[0], BOB)[1].client_id == "carol"


@settings(max_examples=60)
@given(st.data())
def test_a_sealed_file_that_was_changed_is_refused(data: st.DataObject) -> None:
    """Any byte of it, or any of its values: never another key, never a traceback."""
    place = data.draw(st.integers(0, len(SEALED) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda each: each != SEALED[place]))
    changed = SEALED[:place] + bytes([byte]) + SEALED[place + 1 :]
    try:
        held, sender = unseal(changed, BOB)
    except CollabEditError:
        return
    assert (held, sender.client_id) == (HELD, "alice")  # white space of the JSON or of the PEM alone


@pytest.mark.parametrize("field", ["epoch", "recipient", "federation", "sealed", "sender"])
def test_each_value_is_bound(field: str) -> None:
    """To the signature; and where an insider signs anew, to the seal itself."""
    said = SealedKey.model_validate_json(SEALED)
    carol = party("carol")
    values = {
        "epoch": 3,
        "recipient": "carol",
        "federation": "sha256:" + "0" * 64,
        "sealed": ("00" if said.sealed[:2] != "00" else "01") + said.sealed[2:],
        "sender": carol.certificate_pem.decode(),
    }
    changed = said.model_copy(update={field: values[field]})
    for opener in (BOB, carol):
        with pytest.raises(CollabEditError):
            unseal(changed.model_dump_json().encode(), opener)
    if field in {"epoch", "sealed", "sender"}:
        signed = sealed_key._signed(changed.model_copy(update={"sender": carol.certificate_pem.decode()}), carol)
        with pytest.raises(BadFileError, match="sealed for another key"):
            unseal(signed, BOB)


def test_whose_it_is_not() -> None:
    """Another client, another federation, the same name with another key: each is told what is wrong."""
    with pytest.raises(IdentityError, match="sealed for bob; this host is carol"):
        unseal(SEALED, party("carol"))
    other = pki.create_authority("other", NOW)
    with pytest.raises(MismatchError, match="this host's is sha256"):
        unseal(SEALED, party("bob", ca=other))
    with pytest.raises(BadFileError, match="another key"):
        unseal(SEALED, party("bob"))


def test_to_whom_nothing_is_sealed() -> None:
    """Another CA's certificate, an ended one, an admin's or observer's, a key that cannot be sealed to."""
    weak = pki.Request("dora", rsa.generate_private_key(65537, 3072).public_key())
    cases = {
        "has not signed it": party("bob", ca=pki.create_authority("other", NOW)).certificate_pem,
        "no certificate": b"nothing",
        "ended on": party("bob", made=NOW - timedelta(days=400)).certificate_pem,
        "boss is admin": party("boss", role="admin").certificate_pem,
        "P-256 or P-384": pki.certificate_pem(pki.sign_request(CA, weak, "client", NOW)),
    }
    for said, certificate in cases.items():
        with pytest.raises(IdentityError, match=said) as caught:
            seal(HELD, certificate, ALICE, NOW)
        assert caught.value.mend or said == "no certificate"
    with pytest.raises(MismatchError, match="without a CA"):
        seal(replace(HELD, federation=""), BOB.certificate_pem, ALICE, NOW)


def test_who_cannot_seal() -> None:
    """A key from an admin, or from a stranger who has a CA of the same name, is not taken."""
    stranger = party("alice", ca=pki.create_authority("federation", NOW))
    for sender in (party("boss", role="admin"), replace(stranger, ca_pem=CA.certificate_pem)):
        sealed = seal(HELD, BOB.certificate_pem, sender, NOW)[0]
        with pytest.raises(IdentityError):
            unseal(sealed, BOB)


@given(st.binary(max_size=300) | st.just(b"{}") | st.just(SEALED[:-9]))
def test_what_is_no_sealed_file(data: bytes) -> None:
    """Is refused in a line."""
    with pytest.raises(BadFileError, match="not a sealed federation key"):
        unseal(data, BOB)


# ---- kept


def test_kept_for_its_owner_alone(tmp_path: Path) -> None:
    """Mode 0600, the same after reading it again; from the folder or from the file."""
    assert load_federation_key(tmp_path) is None
    federation_key.save(tmp_path, HELD)
    file = tmp_path / KEY_FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load_federation_key(tmp_path) == load_federation_key(file) == HELD.key
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"federation": "", "epoch": 0, "secret": "00"}'])
def test_a_damaged_file(content: bytes, tmp_path: Path) -> None:
    """Is an error that names it and the mend, and is not written over."""
    (tmp_path / KEY_FILE).write_bytes(content)
    for act in (load_federation_key, federation_key.rotate, lambda folder: federation_key.make(folder, "")):
        with pytest.raises(StateError, match=KEY_FILE) as caught:
            act(tmp_path)
        assert "federation-key open" in caught.value.mend
    assert (tmp_path / KEY_FILE).read_bytes() == content


def test_older_keys_are_not_taken_unless_forced(tmp_path: Path) -> None:
    """Nor another one of the same epoch; the same again and newer ones are."""
    federation_key.accept(tmp_path, HELD)
    federation_key.accept(tmp_path, HELD)
    for key in (FederationKey(1, SECRET), FederationKey(2, bytes(KEY_BYTES))):
        with pytest.raises(StateError, match="holds the key 2:"):
            federation_key.accept(tmp_path, replace(HELD, key=key))
        assert load_federation_key(tmp_path) == HELD.key
    with pytest.raises(MismatchError):
        federation_key.accept(tmp_path, HeldKey(FederationKey(3, SECRET), "sha256:other"), force=True)
    federation_key.accept(tmp_path, replace(HELD, key=FederationKey(3, SECRET)))
    federation_key.accept(tmp_path, HELD, force=True)
    assert load_federation_key(tmp_path) == HELD.key


# ---- commands


def test_from_party_to_party(tmp_path: Path) -> None:
    """Made at one, sealed, opened at the other; rotated, and again; both show the same, and never the secret."""
    alice, bob = host(tmp_path / "alice", ALICE), host(tmp_path / "bob", BOB)
    certificate, file = bob / "credentials" / "client.pem", tmp_path / "key.json"
    made = run("make", "--state", alice)
    assert "made epoch 1, check 1:" in made.stdout
    assert f"--out SEALED.json --state {alice}" in made.stderr, "as it is to be typed"
    for epoch in (1, 2):
        said = run("seal", "--for", certificate, "--out", file, "--state", alice).stdout
        opened = json.loads(run("open", file, "--state", bob, "--json").stdout)
        assert opened["from"] == "alice"
        shown = [run("show", "--state", each).stdout for each in (alice, bob)]
        assert shown[0] == shown[1] == f"epoch {epoch}, check {opened['check']}\n"
        key = load_federation_key(bob)
        assert key == load_federation_key(alice)
        assert key.secret.hex() not in said + file.read_text() + "".join(shown)
        run("rotate", "--state", alice)


def test_compared_by_what_both_print(tmp_path: Path) -> None:
    """`seal` prints the fingerprint that `collab pki show` prints at the other party."""
    alice, bob = host(tmp_path / "alice", ALICE), host(tmp_path / "bob", BOB)
    run("make", "--state", alice)
    where = ["--for", bob / "credentials" / "client.pem", "--out", tmp_path / "key.json"]
    sealed = json.loads(run("seal", *where, "--state", alice, "--json").stdout)
    shown = json.loads(CliRunner().invoke(command, ["show", "--state", str(bob), "--json"]).stdout)
    assert sealed["fingerprint"] == shown["fingerprint"]


def test_without_certificates_the_file_itself_is_carried(tmp_path: Path) -> None:
    """`make --out` where nobody has enrolled; sealing says what it would need."""
    file = tmp_path / "federation.key"
    told = json.loads(run("make", "--out", file, "--state", tmp_path / "none", "--json").stdout)
    assert told["federation"] == ""
    assert load_federation_key(file).check == told["check"]
    with pytest.raises(StateError, match="already"):
        run("make", "--out", file, "--state", tmp_path / "none")
    with pytest.raises(IdentityError, match="has not enrolled"):
        run("seal", "--for", file, "--out", tmp_path / "x", "--key", file, "--state", tmp_path / "none")


def test_a_server_has_no_key(tmp_path: Path) -> None:
    """Made or opened in a server's state folder, the key would be where it must not be: refused, nothing written."""
    state = tmp_path / "server"
    (state / "pki").mkdir(parents=True)
    (state / "pki" / "ca.pem").write_bytes(CA.certificate_pem)
    for words in (["make"], ["open", tmp_path / "key.json"], ["make", "--out", state / "federation.key"]):
        with pytest.raises(UsageError, match="the server must never have"):
            run(*words, "--state", state)
    assert not (state / KEY_FILE).exists()


def test_a_host_that_has_not_enrolled_says_where_its_key_goes(tmp_path: Path) -> None:
    """Else a key of no federation would lie in the state folder: it could not be sealed, nor another be made."""
    with pytest.raises(IdentityError, match="not enrolled") as caught:
        run("make", "--state", tmp_path / "alice")
    assert "--out" in caught.value.mend
    assert not (tmp_path / "alice").exists()


def test_who_is_no_client_makes_none(tmp_path: Path) -> None:
    """An admin or an observer has no edits, and mostly the server's host."""
    for role in ("admin", "observer"):
        state = host(tmp_path / role, party(role, role=role))
        with pytest.raises(IdentityError, match=f"{role} is {role} of the federation, no client"):
            run("make", "--state", state)
        assert not (state / KEY_FILE).exists()


def test_a_file_that_somebody_sent_is_named(tmp_path: Path) -> None:
    """Whatever is wrong with it: a person has several."""
    alice, bob = host(tmp_path / "alice", ALICE), host(tmp_path / "bob", BOB)
    run("make", "--state", alice)
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate")
    with pytest.raises(IdentityError, match=r"wrong\.pem: no certificate"):
        run("seal", "--for", wrong, "--out", tmp_path / "key.json", "--state", alice)
    run("seal", "--for", alice / "credentials" / "client.pem", "--out", tmp_path / "key.json", "--state", alice)
    with pytest.raises(IdentityError, match=r"key\.json: the key is sealed for alice; this host is bob"):
        run("open", tmp_path / "key.json", "--state", bob)
    with pytest.raises(BadFileError, match=r"wrong\.pem: not a sealed federation key"):
        run("open", wrong, "--state", bob)


def test_nothing_there(tmp_path: Path) -> None:
    """Each command names the file that is missing."""
    state = host(tmp_path / "alice", ALICE)
    for words in (["show"], ["rotate"], ["seal", "--for", "x.pem", "--out", "y"]):
        with pytest.raises(StateError, match=KEY_FILE):
            run(*words, "--state", state)
    with pytest.raises(CollabEditError, match=r"x\.json"):
        run("open", "x.json", "--state", state)


def test_every_command_has_help_with_an_example() -> None:
    """And a docstring that says what it does."""
    for name in command.commands["federation-key"].commands:
        assert f"collab pki federation-key {name}" in run(name, "--help").stdout, name
