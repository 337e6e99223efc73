"""Who may call what: one row for each method of each service, and how the call gets into the audit log.

A method without a row is refused to everybody. Pure data; `collabedit.server.identity.Gate` enforces it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from collabedit.common.pki import Role

# A stranger is a caller without a certificate: everybody on the enrolment port.
Access = Role | Literal["stranger"]


class Noted(Enum):
    """How a call that was let through and succeeded is noted. A refused one always is."""

    STORE = "by the store, with what it changed"
    EACH = "one row, written before the answer"
    COUNTED = "counted, a row a minute for each caller and method"
    NEVER = "not at all"


@dataclass(frozen=True)
class Permission:
    """One row of the table."""

    roles: frozenset[Access]
    noted: Noted


def _row(noted: Noted, *roles: Access) -> Permission:
    return Permission(frozenset(roles), noted)


_ROWS: Final[Mapping[str, Mapping[str, Permission]]] = {
    "collabedit.v1.Enrolment": {
        "GetAuthority": _row(Noted.NEVER, "stranger"),
        "Enrol": _row(Noted.STORE, "stranger"),
    },
    "collabedit.v1.Federation": {
        "Join": _row(Noted.COUNTED, "client", "admin"),
        "Enter": _row(Noted.COUNTED, "client"),
        "Await": _row(Noted.NEVER, "client", "observer", "admin"),
        "Contribute": _row(Noted.STORE, "client"),
        "Leave": _row(Noted.EACH, "client"),
        "GetVersion": _row(Noted.COUNTED, "client", "admin"),
        "Report": _row(Noted.COUNTED, "client"),
        "ListVerdicts": _row(Noted.NEVER, "client"),
    },
    "collabedit.v1.Blobs": {
        "FindMissing": _row(Noted.NEVER, "client"),
        "QueryWrite": _row(Noted.NEVER, "client"),
        "Write": _row(Noted.COUNTED, "client"),
        "Read": _row(Noted.COUNTED, "client", "admin"),
    },
    "collabedit.v1.Operations": {
        "GetStatus": _row(Noted.COUNTED, "client", "observer", "admin"),
        "ListRounds": _row(Noted.COUNTED, "client", "observer", "admin"),
        "GetRound": _row(Noted.COUNTED, "client", "observer", "admin"),
        "Renew": _row(Noted.STORE, "client", "observer", "admin"),
        "IssueToken": _row(Noted.STORE, "admin"),
        "Revoke": _row(Noted.STORE, "admin"),
        "AbortRound": _row(Noted.EACH, "admin"),
        "RollBack": _row(Noted.EACH, "admin"),
        "ListConflicts": _row(Noted.COUNTED, "observer", "admin"),
        "DecideConflict": _row(Noted.EACH, "admin"),
        "SetKeyCheck": _row(Noted.EACH, "admin"),
        "GetRetention": _row(Noted.COUNTED, "client", "observer", "admin"),
        "ListAudit": _row(Noted.COUNTED, "admin"),
    },
    "grpc.health.v1.Health": {
        "Check": _row(Noted.NEVER, "stranger"),
        "Watch": _row(Noted.NEVER, "stranger"),
        "List": _row(Noted.NEVER, "stranger"),
    },
}

PERMISSIONS: Final[Mapping[str, Permission]] = {
    f"/{service}/{method}": row for service, methods in _ROWS.items() for method, row in methods.items()
}
NOBODY: Final = Permission(frozenset(), Noted.EACH)


def permission(method: str) -> Permission:
    """The row of a method, `/package.Service/Method`; where there is none, nobody may."""
    return PERMISSIONS.get(method, NOBODY)


def short(method: str) -> str:
    """`Service/Method`, as the audit log has it."""
    return method.rpartition(".")[2]
