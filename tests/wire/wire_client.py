"""A client as a process of its own: `python wire_client.py CREDENTIALS SERVER up|down|both FILE [DIGEST]`.

Prints the digest, and by how many bytes the most memory it ever held grew over a first small transfer.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from pathlib import Path

from collabedit.client import transfer
from collabedit.client.connection import connect


def main(credentials: Path, server: str, way: str, file: Path, digest: str = "") -> None:
    """Moves a small file both ways, then `file` as told."""
    with connect(server, credentials) as connection:
        with tempfile.TemporaryDirectory() as folder:
            small = Path(folder) / "small"
            small.write_bytes(bytes(8 << 20))
            transfer.download(connection, transfer.upload(connection, small), Path(folder) / "back")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if way in ("up", "both"):
            digest = transfer.upload(connection, file)
        if way in ("down", "both"):
            transfer.download(connection, digest, file.with_name(f"{file.name}.down"))
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
        sys.stdout.write(f"{digest} {grown}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4]), *sys.argv[5:])
