"""How the server's ports are opened: TLS credentials and the channel's limits."""

from __future__ import annotations

from typing import Final

import grpc

# A client whose call is silent pings every 20 s; without leave to do so it would be sent away for it.
OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.bdp_probe", 0),  # left to itself gRPC takes in ever more of a stream that the disk is behind with
    ("grpc.http2.lookahead_bytes", 4 << 20),
    ("grpc.max_receive_message_length", 8 << 20),  # claims of 100,000 edits are 7 MB
    ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a silent share of the calls
)
ENROLMENT_OPTIONS: Final = (*OPTIONS[:-2], ("grpc.max_receive_message_length", 64 << 10), ("grpc.so_reuseport", 0))


def mutual_tls(key_pem: bytes, certificate_pem: bytes, ca_pem: bytes) -> grpc.ServerCredentials:
    """Only clients with a certificate of the federation's CA get as far as a call (TLS 1.2 or newer)."""
    return grpc.ssl_server_credentials([(key_pem, certificate_pem)], root_certificates=ca_pem, require_client_auth=True)


def server_tls(key_pem: bytes, certificate_pem: bytes) -> grpc.ServerCredentials:
    """The server proves who it is, its clients do not: for enrolment, where they have no certificate yet."""
    return grpc.ssl_server_credentials([(key_pem, certificate_pem)])
