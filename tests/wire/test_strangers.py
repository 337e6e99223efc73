"""Who is let in: each way of being nobody, or somebody else, or not allowed."""

from __future__ import annotations

import socket
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc
import pytest

from collabedit.client import transfer
from collabedit.client.connection import Address, Connection, connect, open_channel
from collabedit.client.diagnosis import diagnose
from collabedit.common import pki
from collabedit.common.credentials import Credentials
from collabedit.common.errors import ExitCode, IdentityError, UnreachableError, UsageError
from collabedit.v1 import federation_pb2 as pb
from collabedit.v1 import federation_pb2_grpc as rpc

MIB = 1 << 20


def status(connection: Connection) -> pb.GetStatusReply:
    """Any client's call; one try."""
    method = rpc.OperationsStub(connection.channel).GetStatus
    reply: pb.GetStatusReply = connection.call(method, pb.GetStatusRequest(), patience=0)
    return reply


def assert_refused(federation: Any, credentials: Credentials | None, said: str) -> None:
    """The call fails as a refused identity, exit code 8, with `said` in the message and a mend or an instruction."""
    with connect(f"localhost:{federation.port}", credentials) as connection, pytest.raises(IdentityError) as caught:
        status(connection)
    assert said in str(caught.value)
    assert caught.value.exit_code is ExitCode.REFUSED_IDENTITY


def test_a_member_is_let_in(federation: Any) -> None:
    """A certificate of the federation's CA is enough; the store need not know it."""
    with federation.connect() as connection:
        assert status(connection).clients == 1


def test_no_certificate(federation: Any) -> None:
    """A TLS client without a certificate gets no call through."""
    tls = grpc.ssl_channel_credentials(federation.authority.ca_pem)
    with grpc.secure_channel(f"localhost:{federation.port}", tls) as channel, pytest.raises(grpc.RpcError) as caught:
        rpc.OperationsStub(channel).GetStatus(pb.GetStatusRequest(), timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_plaintext_to_a_tls_port(federation: Any) -> None:
    """The user is told that the server wants TLS."""
    assert_refused(federation, None, "expects TLS")


def test_a_certificate_of_another_ca(federation: Any, start: Any) -> None:
    """The right server, the wrong certificate: refused by the server, and said so."""
    other = start("other").credentials("alice")
    mixed = Credentials(federation.authority.ca_pem, other.certificate_pem, other.key_pem, "")
    assert_refused(federation, mixed, "certificate")


def test_a_server_that_is_killed_refuses_nobody(federation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It hangs up on whoever looks, on each of its addresses, until it is gone: that is waited out."""
    with socket.create_server(("localhost", 0)) as dying:
        threading.Thread(target=hang_up, args=(dying,), daemon=True).start()
        gone = "collabedit.client.diagnosis.sleep"
        monkeypatch.setattr(gone, lambda _: dying.shutdown(socket.SHUT_RDWR), raising=False)
        host, port = "localhost", dying.getsockname()[1]
        assert type(diagnose(host, port, f"{host}:{port}", federation.credentials())) is UnreachableError


def hang_up(listener: socket.socket) -> None:
    """Takes connections and resets each, which leaving bytes unread does, until the listener is closed."""
    with suppress(OSError):
        while True:
            with listener.accept()[0] as taken:
                taken.recv(1)


def test_a_server_of_another_ca(federation: Any, start: Any) -> None:
    """The wrong server: the client does not go on."""
    assert_refused(federation, start("other").credentials("alice"), "not the server of this client's federation")


def test_a_certificate_that_has_ended(federation: Any) -> None:
    """The end is named."""
    assert_refused(federation, federation.credentials(days_ago=400), "ended on")


def test_a_certificate_made_for_a_server_is_none_for_a_client(federation: Any) -> None:
    """The extended key usage is checked: the server's own key opens nothing."""
    made = pki.issue_server(federation.authority.signer, ["localhost"], federation.now)
    assert_refused(federation, Credentials(federation.authority.ca_pem, made.certificate_pem, made.key_pem, ""), "")


def test_a_client_cannot_play_the_server(federation: Any, loop: Any) -> None:
    """A member's certificate named as a host does not pass for the server's."""
    member = federation.credentials("localhost")

    async def pose() -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server()
        tls = grpc.ssl_server_credentials([(member.key_pem, member.certificate_pem)])
        port = server.add_secure_port("localhost:0", tls)
        await server.start()
        return server, port

    server, port = loop.run(pose())
    with federation.connect(port=port) as connection, pytest.raises(IdentityError):
        status(connection)
    loop.run(server.stop(None))


def test_a_revoked_client(federation: Any) -> None:
    """Refused from the next call on, on a connection that is open already."""
    with federation.connect() as connection:
        status(connection)
        federation.memory.revoke("alice")
        with pytest.raises(IdentityError, match="revoked"):
            status(connection)


def test_a_stream_ends_with_its_clients_revocation(federation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload under way is cut off within the interval at which streams are checked again."""
    monkeypatch.setattr("collabedit.server.identity.RECHECK_SECONDS", 0.0)
    data = bytes(MIB)

    def chunks() -> Any:
        for offset in range(0, 64 * MIB, MIB):
            checksum = zlib.crc32(data)
            yield pb.WriteRequest(digest="0" * 64, size=64 * MIB, offset=offset, data=data, checksum=checksum)
            if offset == 8 * MIB:
                federation.memory.revoke("alice")

    with federation.connect() as connection, pytest.raises(grpc.RpcError) as caught:
        rpc.BlobsStub(connection.channel).Write(chunks())
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert dict(caught.value.trailing_metadata())["collabedit-error"] == "revoked"


def test_a_replaced_certificate(federation: Any) -> None:
    """Once a client has enrolled anew, its earlier certificate opens nothing."""
    old = federation.credentials()
    federation.memory.add_client("alice", "client", "12345", 0.0)
    assert_refused(federation, old, "replaced")


def test_the_certificate_says_who_calls(federation: Any, tmp_path: Any) -> None:
    """Claiming another client's name in the metadata changes nothing: bytes count for the certificate's name."""
    file = tmp_path / "file"
    file.write_bytes(b"content")
    with federation.connect(federation.credentials("mallory")) as connection:
        claimed = grpc.intercept_channel(connection.channel, Claims("alice"))
        transfer.upload(Connection(connection.address, claimed, None), file)
    assert set(federation.heard) == {"mallory"}


class Claims(grpc.UnaryUnaryClientInterceptor, grpc.StreamUnaryClientInterceptor):
    def __init__(self, name: str) -> None:
        self.entry = ("x-client-id", name)

    def _more(self, details: Any) -> Any:
        return details._replace(metadata=[*(details.metadata or ()), self.entry])

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._more(client_call_details), request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return continuation(self._more(client_call_details), request_iterator)


def test_admin_calls_need_an_admin(federation: Any) -> None:
    """Role from the certificate; the store's role goes before it."""

    def revoke(credentials: Credentials) -> None:
        with federation.connect(credentials) as connection:
            method = rpc.OperationsStub(connection.channel).Revoke
            connection.call(method, pb.RevokeRequest(client_id="x"), patience=0)

    admin = federation.credentials("root", role="admin")
    revoke(admin)
    with pytest.raises(IdentityError, match="admin"):
        revoke(federation.credentials("alice"))
    federation.memory.add_client("root", "client", "", 0.0)
    with pytest.raises(IdentityError, match="admin"):
        revoke(admin)


def test_plaintext_takes_the_name_from_the_metadata(start: Any) -> None:
    """Without TLS the caller says who it is; one that says nothing, or no client id, is refused."""
    federation = start(plaintext=True)
    address = f"localhost:{federation.port}"
    with connect(address, None, client_id="alice") as connection:
        assert status(connection).clients == 1
    for name in ("", "Not A Name"):
        with connect(address, None, client_id=name) as connection, pytest.raises(IdentityError):
            status(connection)


def test_plaintext_stays_on_this_host() -> None:
    """Another host is refused before anything is sent."""
    with pytest.raises(UsageError, match="this host alone"):
        connect("edits.example.org:50051", None, client_id="alice")


def test_nobody_there(federation: Any) -> None:
    """A closed port, and a name that does not resolve: unreachable, exit code 7, address and mend in it."""
    credentials = federation.credentials()
    for address in ("localhost:9", "nowhere.invalid:50051"):
        with connect(address, credentials) as connection, pytest.raises(UnreachableError) as caught:
            status(connection)
        assert address in str(caught.value)
        assert caught.value.exit_code is ExitCode.UNREACHABLE
        assert caught.value.mend


def test_a_call_waits_for_a_server_that_starts(start: Callable[..., Any], proxy: Any) -> None:
    """A call made while nobody listens succeeds once somebody does."""
    federation = start()
    late = proxy(1)
    late.target = 1  # nobody
    with federation.connect(port=late.port) as connection:
        threading.Timer(0.3, lambda: setattr(late, "target", federation.port)).start()
        method = rpc.OperationsStub(connection.channel).GetStatus
        assert connection.call(method, pb.GetStatusRequest(), patience=30).clients == 1


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("localhost:50051", "localhost", 50051, True),
        ("127.0.0.1:1", "127.0.0.1", 1, True),
        ("[::1]:65535", "::1", 65535, True),
        (" edits.example.org:443 ", "edits.example.org", 443, False),
        ("10.0.0.1:80", "10.0.0.1", 80, False),
    ],
)
def test_addresses(text: str, host: str, port: int, loopback: bool) -> None:
    """host:port as people write it, and back."""
    address = Address.parse(text)
    assert (address.host, address.port, address.loopback) == (host, port, loopback)
    assert str(address) == text.strip()


@pytest.mark.parametrize(
    "text", ["", "localhost", "localhost:", ":1", "a:0", "a:65536", "::1:80", "http://a:80", "a b:1"]
)
def test_no_addresses(text: str) -> None:
    """Anything else is refused with an example."""
    with pytest.raises(UsageError) as caught:
        Address.parse(text)
    assert "host:port" in caught.value.mend


def test_a_key_is_not_shown(federation: Any) -> None:
    """Printing credentials, in a log for instance, does not show the key."""
    credentials = federation.credentials()
    assert "PRIVATE" not in repr(credentials)
    open_channel(Address("localhost", federation.port), credentials).close()
