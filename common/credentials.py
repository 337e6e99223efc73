"""What one party holds to prove who it is: four files in a folder, the same for a client and for the server's admin."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from collabedit.common.errors import IdentityError, StateError
from collabedit.common.files import write_durably

CA_FILE: Final = "ca.pem"
CERTIFICATE_FILE: Final = "client.pem"
KEY_FILE: Final = "client.key"
SERVER_FILE: Final = "server.json"
PRIVATE: Final = 0o600


@dataclass(frozen=True)
class Credentials:
    """The federation's CA, one's own certificate and key (all PEM), and the address of the federation's services."""

    ca_pem: bytes
    certificate_pem: bytes
    key_pem: bytes = field(repr=False)
    server: str

    @classmethod
    def load(cls, folder: Path) -> Credentials:
        """Reads a credentials folder. Raises IdentityError where the party has not enrolled, StateError otherwise."""
        try:
            ca, certificate, key = ((folder / name).read_bytes() for name in (CA_FILE, CERTIFICATE_FILE, KEY_FILE))
        except FileNotFoundError as error:
            raise IdentityError(
                f"{error.filename}: no such file; this host has not enrolled with a federation",
                mend="run the `collab pki enrol …` command that the server's operator gave you",
            ) from error
        except OSError as error:
            raise StateError(f"{error.filename}: {error.strerror}") from error
        return cls(ca, certificate, key, read_server(folder))

    def save(self, folder: Path) -> None:
        """Writes the folder durably; the certificate last, since its presence says that the others are there."""
        make_private(folder)
        write_durably(folder / CA_FILE, self.ca_pem)
        write_durably(folder / KEY_FILE, self.key_pem, mode=PRIVATE)
        write_server(folder, self.server)
        write_durably(folder / CERTIFICATE_FILE, self.certificate_pem)


def make_private(folder: Path) -> None:
    """Makes a credentials folder, and the state folder around it, for their owner alone."""
    for each in (folder.parent, folder):
        each.mkdir(parents=True, exist_ok=True, mode=0o700)


def write_server(folder: Path, server: str) -> None:
    """Notes the address host:port of the federation's services."""
    write_durably(folder / SERVER_FILE, json.dumps({"server": server}).encode() + b"\n")


def read_server(folder: Path) -> str:
    """The address noted in the folder; "" where none is. Raises StateError where the file is not ours."""
    file = folder / SERVER_FILE
    try:
        server = json.loads(file.read_text())["server"]
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateError(f"{file}: not readable as JSON with a `server`", mend="enrol again") from error
    return str(server)
