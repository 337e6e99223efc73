"""Who may call what: the table is whole, and what it does not name is refused."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, get_args

import grpc
import pytest
from grpc_health.v1 import health_pb2

from collabedit.common.pki import Role
from collabedit.server import permissions
from collabedit.server.identity import Gate
from collabedit.server.permissions import PERMISSIONS, Noted, permission
from collabedit.v1 import federation_pb2 as pb

METHODS = [
    f"/{service.full_name}/{method.name}"
    for file in (pb.DESCRIPTOR, health_pb2.DESCRIPTOR)
    for service in file.services_by_name.values()
    for method in service.methods
]


@pytest.mark.parametrize("method", METHODS)
def test_each_method_of_each_service_has_a_row(method):
    """A method that somebody adds to a .proto is refused to all until the table says whose it is."""
    assert PERMISSIONS[method].roles


def test_the_table_names_no_method_that_is_not_there():
    """A row for nothing would be a mistake in a name."""
    assert set(PERMISSIONS) == set(METHODS)


def test_what_each_role_may_do():
    """Observers read status, rounds and numbers; no weights and no contributions. Admins take no part in rounds."""
    may = {role: {name.rpartition("/")[2] for name in PERMISSIONS if role in permission(name).roles} for role in ROLES}
    reads = {"GetStatus", "ListRounds", "GetRound", "Await", "Renew", "GetRetention"}
    assert may["observer"] == reads | {"ListConflicts"}
    decides = {"ListConflicts", "DecideConflict", "SetKeyCheck"}
    operates = {"IssueToken", "Revoke", "AbortRound", "RollBack", "ListAudit", *decides}
    assert may["admin"] == reads | operates | {"Join", "GetVersion", "Read"}
    assert may["client"] == {each.rpartition("/")[2] for each in METHODS} - operates - may["stranger"]
    assert may["stranger"] == {"GetAuthority", "Enrol", "Check", "Watch", "List"}


ROLES = (*get_args(Role), "stranger")


def test_what_changes_something_is_noted_each_time():
    """A call that no client's own data alone changes is in the log by itself, not by its number."""
    changing = {"Enrol", "Contribute", "Leave", "Renew", "IssueToken", "Revoke", "AbortRound", "RollBack"}
    changing |= {"DecideConflict", "SetKeyCheck"}
    noted = {name.rpartition("/")[2] for name, row in PERMISSIONS.items() if row.noted in (Noted.EACH, Noted.STORE)}
    assert noted == changing


class RefusedError(Exception):
    pass


class Context:
    """As much of a call's context as a gate looks at."""

    def __init__(self, client: str) -> None:
        self.client, self.said = client, ("", "")

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return [("x-client-id", self.client)]

    async def abort(self, code: grpc.StatusCode, what: str, trailing: Any = ()) -> None:
        self.said = (code.name, what)
        raise RefusedError


def test_a_method_without_a_row_is_refused_to_everybody(monkeypatch):
    """Default deny: the servicer has the method, the table does not, and not even an admin gets to it."""
    monkeypatch.setattr(
        permissions, "PERMISSIONS", {name: row for name, row in PERMISSIONS.items() if "GetStatus" not in name}
    )
    unknown = SimpleNamespace(client=lambda _: None, serial_revoked=lambda _: False)
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: "an answer")
    details = SimpleNamespace(method="/collabedit.v1.Operations/GetStatus")

    async def call(context: Context) -> Any:
        async def continuation(_: Any) -> Any:
            return handler

        wrapped = await Gate(unknown, plaintext=True).intercept_service(continuation, details)
        return await wrapped.unary_unary(object(), context)

    for client in ("alice", "admin"):
        context = Context(client)
        with pytest.raises(RefusedError):
            asyncio.run(call(context))
        assert context.said[0] == "PERMISSION_DENIED"
        assert "is for nobody" in context.said[1]
