"""Downloads the covariance several times at once. Arguments: state folder, folder for the files.

Prints "reading" when a MiB has come, and "whole" when all of them are whole.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

from collabedit.client.connection import connect, credentials_folder
from collabedit.client.transfer import download
from collabedit.common.credentials import Credentials
from collabedit.v1 import federation_pb2 as pb
from collabedit.v1 import federation_pb2_grpc as rpc

state, target = Path(sys.argv[1]), Path(sys.argv[2])
credentials = Credentials.load(credentials_folder(state))
begun = threading.Event()


def progress(done: int, *_: int) -> None:
    """The first one to get so far tells it."""
    if done > 1 << 20 and not begun.is_set():
        begun.set()
        print("reading", flush=True)


with connect(credentials.server, credentials) as connection:
    method = rpc.OperationsStub(connection.channel).GetStatus
    digest = json.loads(connection.call(method, pb.GetStatusRequest()).settings_json)["covariance_digest"]
    files = [target / f"covariance-{number}" for number in range(4)]
    threads = [
        threading.Thread(
            target=download, args=(connection, digest, file), kwargs={"progress": progress, "patience": 300}
        )
        for file in files
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert all(file.is_file() for file in files)
print("whole", flush=True)
