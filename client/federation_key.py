"""The federation key on one party's host: a file in the client's state folder that its owner alone may read.

The key never passes through the server (`collabedit.client.sealed_key` carries it from party to party), so that the
server cannot try facts until it finds one that has the blinded name of a claim.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from collabedit.common.blinding import KEY_BYTES, FederationKey
from collabedit.common.credentials import PRIVATE
from collabedit.common.errors import MismatchError, StateError
from collabedit.common.files import write_durably

KEY_FILE: Final = "federation.key"
GET_ONE: Final = (
    "`collab pki federation-key open FILE` with what another party has sealed for you, or `make` where none has it yet"
)


@dataclass(frozen=True)
class HeldKey:
    """The federation key, and the federation that it is of: the fingerprint of its CA, "" for one without a CA."""

    key: FederationKey
    federation: str


class _Stored(BaseModel):
    """The file's content."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    federation: str
    epoch: int = Field(ge=1)
    secret: str = Field(pattern=rf"^[0-9a-f]{{{2 * KEY_BYTES}}}$")


def load_federation_key(folder_or_file: Path) -> FederationKey | None:
    """The key in a client's state folder, or in a file; None where there is none. Raises StateError."""
    held = load(folder_or_file)
    return held.key if held else None


def load(folder_or_file: Path) -> HeldKey | None:
    """The key with its federation; None where there is none. Raises StateError for a file that holds something else."""
    file = key_file(folder_or_file)
    try:
        stored = _Stored.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"{file}: {error.strerror}") from error
    except ValidationError as error:
        raise StateError(f"{file}: not a federation key, or damaged", mend=f"move it away, then {GET_ONE}") from error
    return HeldKey(FederationKey(stored.epoch, bytes.fromhex(stored.secret)), stored.federation)


def demand(folder_or_file: Path) -> HeldKey:
    """The key with its federation. Raises StateError where there is none."""
    held = load(folder_or_file)
    if held is None:
        raise StateError(f"{key_file(folder_or_file)}: no federation key", mend=GET_ONE)
    return held


def save(folder_or_file: Path, held: HeldKey) -> None:
    """Writes the file durably, in place of one that is there. Raises StateError where that cannot be."""
    file = key_file(folder_or_file)
    stored = _Stored(federation=held.federation, epoch=held.key.epoch, secret=held.key.secret.hex())
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_durably(file, stored.model_dump_json().encode() + b"\n", mode=PRIVATE)
    except OSError as error:
        raise StateError(f"{file}: {error.strerror}", mend="give a folder that you may write") from error


def make(folder_or_file: Path, federation: str) -> HeldKey:
    """The federation's first key, made here and stored. Raises StateError where there is a key already."""
    if load(folder_or_file) is not None:
        raise StateError(
            f"{key_file(folder_or_file)}: there is a federation key already",
            mend="`collab pki federation-key rotate` makes the next one",
        )
    return _stored(folder_or_file, HeldKey(_fresh(1), federation))


def rotate(folder_or_file: Path) -> HeldKey:
    """The next key, of the epoch after the one that is there, in its place. Raises StateError where there is none."""
    before = demand(folder_or_file)
    return _stored(folder_or_file, HeldKey(_fresh(before.key.epoch + 1), before.federation))


def accept(folder_or_file: Path, held: HeldKey, *, force: bool = False) -> None:
    """Stores a key that another party has made. The same one again changes nothing.

    force: also where it is of an earlier epoch than the one that is there, or another of the same epoch.
    Raises MismatchError where the key there is another federation's, StateError where force is needed.
    """
    before = load(folder_or_file)
    file = key_file(folder_or_file)
    if before is not None and before.federation != held.federation:
        raise MismatchError(
            f"{file}: holds the key of the federation {before.federation or 'without a CA'}, not of {held.federation}",
            mend="open it with the --state of this federation's client",
        )
    if before is not None and before.key != held.key and held.key.epoch <= before.key.epoch and not force:
        said = "another key of the same epoch" if held.key.epoch == before.key.epoch else "an older one"
        raise StateError(
            f"{file}: holds the key {before.key.check}; {held.key.check} is {said}",
            mend="ask the other parties which they have (`collab pki federation-key show`); --force takes it",
        )
    save(file, held)


def key_file(folder_or_file: Path) -> Path:
    """The key's place in a state folder, or the file that was named."""
    return folder_or_file / KEY_FILE if folder_or_file.is_dir() else folder_or_file


def _fresh(epoch: int) -> FederationKey:
    return FederationKey(epoch, secrets.token_bytes(KEY_BYTES))


def _stored(folder_or_file: Path, held: HeldKey) -> HeldKey:
    save(folder_or_file, held)
    return held
