"""`collab-server --check`: does the server of this state answer?"""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from collabedit.common.errors import UnreachableError
from collabedit.server.config import ServerConfig
from collabedit.server.identity import CLIENT_ID_KEY
from collabedit.server.state_folder import read_running

PATIENCE = 5.0  # seconds
CHECKER = "health-check"


def check_running(config: ServerConfig) -> None:
    """Returns where the running server says that it serves. Raises UnreachableError otherwise."""
    running = read_running(config.state)
    with grpc.insecure_channel(running.listen) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=PATIENCE, metadata=((CLIENT_ID_KEY, CHECKER),)
            )
        except grpc.RpcError as error:
            what = f"{running.listen}: the server of {config.state} does not answer"
            raise UnreachableError(what, mend="look at its log, then start it again") from error
    if reply.status != health_pb2.HealthCheckResponse.SERVING:
        raise UnreachableError(f"{running.listen}: the server of {config.state} does not serve yet")
