"""Content addresses: the SHA-256 of a file's bytes, written as 64 lower-case hexadecimal digits."""

from __future__ import annotations

import re
from typing import Final

from collabedit.common.errors import BadFileError, Fault

DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class BadDigestError(BadFileError):
    """What a peer gave as a content address is none."""

    fault = Fault.PEER


def check_digest(digest: str) -> str:
    """Returns `digest`, which may now be part of a path; raises BadDigestError unless it is a content address."""
    if not DIGEST.fullmatch(digest):
        raise BadDigestError(
            f"{digest[:80]!r} is no content address", mend="it is the SHA-256 as 64 lower-case hexadecimal digits"
        )
    return digest
