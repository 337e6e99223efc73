"""A tiny base model, parties that speak the real protocol, and server processes to speak it with."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import grpc
import preloaded
import pytest
import torch
from safetensors.torch import load_file, save_file

from collabedit.common.contribution import Factored, Metadata
from collabedit.common.contribution_file import write_contribution
from collabedit.common.factors import factor_update
from collabedit.v1 import federation_pb2 as pb
from collabedit.v1 import federation_pb2_grpc as rpc

sys.path.insert(0, str(Path(__file__).parent))  # in importlib mode the modules beside a test are not found otherwise

BIN = Path(sys.executable).parent
D_MODEL, D_IN, EDITS = 12, 24, 10
WEIGHTS = tuple(f"transformer.h.{layer}.mlp.c_proj.weight" for layer in (0, 1))
HPARAMS = {
    "layers": [0, 1],
    "v_num_grad_steps": 5,
    "v_lr": 0.5,
    "v_weight_decay": 0.5,
    "clamp_norm_factor": 0.75,
    "kl_factor": 0.0625,
    "mom2_update_weight": 100,
}


def make_model(folder: Path) -> Path:
    """A model folder as far as a server looks at it: two layers, their covariance, hyperparameters."""
    folder.mkdir(parents=True)
    torch.manual_seed(7)
    stored = {weight: torch.randn(D_IN, D_MODEL) for weight in WEIGHTS}
    save_file({**stored, "transformer.wte.weight": torch.randn(5, D_MODEL)}, folder / "model.safetensors")
    rows = {weight: torch.randn(200, D_IN, dtype=torch.float64) for weight in WEIGHTS}
    covariance = {f"{weight}.covariance": (k.T @ k / len(k)) for weight, k in rows.items()}
    save_file(covariance, folder / "covariance.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_layer": 2}))
    (folder / "hparams.json").write_text(json.dumps(HPARAMS))
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """The tiny model's folder."""
    return make_model(tmp_path_factory.mktemp("model") / "tiny")


def keys_and_residuals(client: str, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys [d_in, M] and residuals [d_out, M] that depend on the client's name and the layer alone."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{client} {layer}".encode()))
    keys = torch.randn(D_IN, EDITS, generator=generator, dtype=torch.float64)
    return keys, torch.randn(D_MODEL, EDITS, generator=generator, dtype=torch.float64)


def factored(client: str, layer: int) -> Factored:
    """What the party uploads for a layer."""
    return factor_update(*keys_and_residuals(client, layer)).to(torch.float32)


class Party:
    """A light client: real protocol, random edits."""

    def __init__(self, client: str, address: str, folder: Path, channel: grpc.Channel | None = None) -> None:
        self.client = client
        self.address = address
        self.folder = folder
        self.channel = channel or grpc.insecure_channel(address)
        self.metadata = () if channel else (("x-client-id", client),)
        self.federation = self._bind(rpc.FederationStub(self.channel))
        self.blobs = self._bind(rpc.BlobsStub(self.channel))
        self.operations = self._bind(rpc.OperationsStub(self.channel))
        self.settings: dict = {}

    def _bind(self, stub):
        """The stub with this party's identity on every call, which waits for a server that is starting."""
        metadata = self.metadata

        class Bound:
            def __getattr__(self, name):
                method = getattr(stub, name)
                return lambda request: method(request, metadata=metadata, wait_for_ready=True, timeout=120)

        return Bound()

    def join(self, fingerprint: str = "", check: str = "") -> pb.JoinReply:
        """Joins with the federation's own fingerprints. check: of the federation key."""
        told = (
            fingerprint
            or json.loads(self.operations.GetStatus(pb.GetStatusRequest()).settings_json)["model_fingerprint"]
        )
        reply = self.federation.Join(pb.JoinRequest(protocol_versions=[1], model_fingerprint=told, key_check=check))
        self.settings = json.loads(reply.settings_json)
        return reply

    def upload(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        chunk = pb.WriteRequest(digest=digest, size=len(data), offset=0, data=data, checksum=zlib.crc32(data))
        self.blobs.Write(iter([chunk]))
        return digest

    def download(self, digest: str) -> dict[str, torch.Tensor]:
        data = b"".join(reply.data for reply in self.blobs.Read(pb.ReadRequest(digest=digest)))
        file = self.folder / f"{digest}.safetensors"
        file.write_bytes(data)
        return load_file(file)

    def contribution(self, state: pb.RoundState, **changes) -> bytes:
        """The bytes of this party's contribution to the layer being collected."""
        one_shot = self.settings["schedule"] == "one-shot"
        layers = range(len(WEIGHTS)) if one_shot else [state.layer]
        said = {
            "model_fingerprint": self.settings["model_fingerprint"],
            "covariance_fingerprint": self.settings["covariance_fingerprint"],
            "algorithm": "MEMIT",
            "schedule": self.settings["schedule"],
            "spread": self.settings["spread"],
            "residual_shares": self.settings["residual_shares"],
            "base_version": state.base_version,
            "round": state.round,
            "edits": EDITS,
        }
        updates = {WEIGHTS[layer]: changes.pop("update", None) or factored(self.client, layer) for layer in layers}
        file = self.folder / f"{self.client}-{state.layer}.safetensors"
        write_contribution(file, updates, Metadata(**{**said, **changes}))
        return file.read_bytes()

    def factored(self, layer: int) -> Factored:
        """What the party uploads for a layer."""
        return factored(self.client, layer)

    def enter(self, claims=(), check: str = "") -> pb.RoundState:
        """Enters the round under way. claims: (slot, fact) of its edits, blinded under the key of that check."""
        state = self.join(check=check).round
        made = [pb.Claim(slot=slot, fact=fact) for slot, fact in claims]
        return self.federation.Enter(
            pb.EnterRequest(
                round=state.round, base_version=state.base_version, edits=EDITS, claims=made, key_check=check
            )
        )

    def verdicts(self, after: int = 0) -> list[pb.Verdict]:
        """What was decided about its claims."""
        return list(self.federation.ListVerdicts(pb.ListVerdictsRequest(after=after)).verdicts)

    def contribute(self, state: pb.RoundState, data: bytes | None = None) -> pb.RoundState:
        digest = self.upload(data if data is not None else self.contribution(state))
        return self.federation.Contribute(
            pb.ContributeRequest(round=state.round, attempt=state.attempt, layer=state.layer, digest=digest)
        )

    def wait(self, state: pb.RoundState, holds) -> pb.RoundState:
        """Awaits until `holds` of the state."""
        while not holds(state):
            state = self.federation.Await(pb.AwaitRequest(revision=state.revision, timeout_seconds=5))
        return state

    def finish(self, state: pb.RoundState) -> pb.RoundState:
        """Contributes wherever it owes something, until the round has ended."""
        number = state.round
        while state.round == number and state.phase not in (pb.PHASE_PUBLISHED, pb.PHASE_NO_QUORUM, pb.PHASE_ABORTED):
            if state.member == pb.MEMBER_STATUS_ENTERED and state.phase != pb.PHASE_MERGING:
                state = self.contribute(state)
            else:
                seen = state.revision
                state = self.wait(state, lambda now, seen=seen: now.revision > seen)
        return state

    def weights(self, number: int) -> dict[str, torch.Tensor]:
        """The weights of a version."""
        version = self.federation.GetVersion(pb.GetVersionRequest(version=number))
        return {layer.weight: self.download(layer.digest)[layer.weight] for layer in version.layers}

    def close(self) -> None:
        self.channel.close()


@dataclass
class Server:
    """A server process on a state folder; started again it keeps its port."""

    state: Path
    model: Path
    flags: tuple[str, ...] = ()
    port: int = 0
    secure: bool = False
    enrolment: str = ""
    process: preloaded.Forked | subprocess.Popen | None = field(default=None, repr=False)

    def command(self) -> list[str]:
        fixed = ["--state", str(self.state), "--model", str(self.model), "--listen", f"localhost:{self.port}"]
        ports = ["--enrol-listen", "localhost:0"] if self.secure else ["--insecure"]
        return [str(BIN / "collab-server"), *fixed, *ports, *self.flags]

    def start(self, *, prints_command: bool = True) -> Server:
        log = (self.state.parent / f"{self.state.name}.log").open("ab")
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = preloaded.start(self.command(), stderr=log, env=environment)
        line = self.process.stdout.readline()
        assert line.startswith("listening on "), self.log()
        self.port = int(line.split()[2].rstrip(",").rpartition(":")[2])
        if self.secure and prints_command:
            assert self.process.stdout.readline().startswith("a party enrols with")
            self.enrolment = self.process.stdout.readline().strip()
        return self

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait()

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    def log(self) -> str:
        return (self.state.parent / f"{self.state.name}.log").read_text()

    def check(self) -> subprocess.CompletedProcess:
        """`collab-server --check` on the state."""
        full = [sys.executable, "-m", "collabedit.server.main", "--check", "--state", str(self.state)]
        return subprocess.run(full, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="session")
def kinds() -> SimpleNamespace:
    """Servers and parties to make, for fixtures that outlive a test."""
    return SimpleNamespace(Server=Server, Party=Party)


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory, model):
    """One server for the tests of a file that leave it as they found it."""
    server = Server(tmp_path_factory.mktemp("shared") / "state", model, ("--entry-window", "0")).start()
    yield server
    server.kill()


@pytest.fixture
def servers(tmp_path, model):
    """Makes servers that are stopped at the end; flags as the command line takes them."""
    made: list[Server] = []

    def make(*flags: str, state: str = "state", of: Path | None = None) -> Server:
        made.append(Server(tmp_path / state, of or model, ("--entry-window", "0", *flags)))
        return made[-1]

    yield make
    for each in made:
        if each.process is not None and each.process.poll() is None:
            each.kill()


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL of this session's own; skips where there is none to be had."""
    from databases import postgresql

    with postgresql() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def new_database(request, tmp_path):
    """Makes databases of each kind in turn, and returns their URLs; empty: without tables, else with all of them."""
    from collabedit.server.database import migrate, open_engine, sqlite_url

    if request.param == "postgresql":
        return request.getfixturevalue("postgres").make

    def make(*, empty: bool = False) -> str:
        url = sqlite_url(tmp_path / f"{len(list(tmp_path.glob('*.sqlite')))}.sqlite")
        if not empty:
            engine = open_engine(url)
            migrate(engine)
            engine.dispose()
        return url

    return make


@pytest.fixture
def parties(tmp_path):
    """Makes parties of a server."""
    made: list[Party] = []

    def make(server: Server, *names: str, channels=None) -> list[Party]:
        folder = tmp_path / "parties"
        folder.mkdir(exist_ok=True)
        each_ones = channels or [None] * len(names)
        new = [Party(name, server.address, folder, own) for name, own in zip(names, each_ones, strict=True)]
        made.extend(new)
        return new

    yield make
    for each in made:
        each.close()


def expected_weights(model: Path, clients: list[str]) -> dict[str, torch.Tensor]:
    """What one party that holds every edit computes, by the formula, in float64 (version 0, layer by layer)."""
    base, covariance = load_file(model / "model.safetensors"), load_file(model / "covariance.safetensors")
    weights = {}
    for layer, weight in enumerate(WEIGHTS):
        pairs = [keys_and_residuals(client, layer) for client in clients]
        keys, residuals = (torch.cat(each, dim=1) for each in zip(*pairs, strict=True))
        gram = HPARAMS["mom2_update_weight"] * covariance[f"{weight}.covariance"] + keys @ keys.T
        weights[weight] = base[weight].T.double() + torch.linalg.solve(gram, keys @ residuals.T).T
    return weights


@pytest.fixture
def expected():
    """The formula's weights."""
    return expected_weights
