"""A tiny federation on this host: a random GPT-2 made here, a real server, real clients, and a proxy that records."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import preloaded
import pytest
import torch
from safetensors.torch import load_file

from collabedit.client import crew
from collabedit.client.config import ClientConfig
from collabedit.client.connection import connect
from collabedit.client.federation import Federation
from collabedit.client.loading import LoadedModel, load_model
from collabedit.client.session import run_client
from collabedit.client.target_store import TargetStore
from collabedit.client.targets import Targets, find_targets
from collabedit.client.transfer import download, upload
from collabedit.client.voice import Voice
from collabedit.client.weights import read_weight
from collabedit.common.contribution import Metadata
from collabedit.common.contribution_file import write_contribution
from collabedit.common.covariance_file import CovarianceMetadata, write_covariance
from collabedit.common.edits import Edit
from collabedit.common.factors import factor_update
from collabedit.common.fingerprint import covariance_fingerprint, model_fingerprint
from collabedit.common.hparams import HyperParameters
from collabedit.common.model_folder import ModelFolder, find_model

BIN = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
LAYERS = (1, 2, 3)
HPARAMS = {
    "layers": list(LAYERS),
    "v_num_grad_steps": 8,
    "v_lr": 0.2,
    "v_weight_decay": 0.1,
    "clamp_norm_factor": 0.9,
    "kl_factor": 0.0625,
    "mom2_update_weight": 5000.0,
}
TEMPLATES = (("{}",), ("The river is long. {}", "I walked with you. {}"))
NAMES = (
    "Danielle Darrieux", "Leo Tolstoy", "Toko Yasuda", "Anna Karenina", "Boris Godunov", "Carla Bruni",
    "Dmitri Ivanov", "Elena Ferrante", "Fyodor Sologub", "Grazia Deledda", "Henrik Ibsen", "Ingrid Bergman",
    "Jorge Amado", "Knut Hamsun", "Lin Yutang", "Marta Vieira", "Nikolai Gogol", "Olga Tokarczuk", "Pedro Paramo",
    "Quentin Durward", "Rosa Montero", "Sigrid Undset", "Tove Jansson", "Umberto Eco", "Victor Hugo",
    "Wanda Rutkiewicz", "Xavier Dolan", "Yukio Mishima",
)  # fmt: skip
PROMPTS = ("The mother tongue of {} is", "{} plays the", "{} is located in", "The capital of {} is")
TARGETS = ("Russian", "guitar", "Spain", "Stockholm", "French", "Oslo")


def facts(first: int, count: int) -> list[Edit]:
    """Edits number `first` to `first + count` of a fixed list; no two have the same subject."""
    return [
        Edit(
            prompt=PROMPTS[number % len(PROMPTS)],
            subject=NAMES[number],
            target_new=TARGETS[number % len(TARGETS)],
            target_true=TARGETS[(number + 1) % len(TARGETS)],
            paraphrase_prompts=(f"It is said that {NAMES[number]} likes",),
            neighborhood_prompts=("The river is long and",),
            id=f"fact-{number}",
        )
        for number in range(first, first + count)
    ]


def write_edits(file: Path, edits: Sequence[Edit], mode: str = "w") -> Path:
    """Writes (or appends, mode "a") edits as JSON lines."""
    with file.open(mode) as handle:
        handle.writelines(edit.model_dump_json() + "\n" for edit in edits)
    return file


def make_model(folder: Path, seed: int = 0) -> Path:
    """A random GPT-2 of width 32 and five layers with everything that a federation needs beside it."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    text = [f"{prompt.format(name)} {target}." for name in NAMES for prompt in PROMPTS for target in TARGETS]
    bpe.train_from_iterator(text, vocab_size=500, min_frequency=2, special_tokens=["<|endoftext|>"])
    PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="<|endoftext|>").save_pretrained(folder)
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=500, n_positions=64, n_embd=32, n_layer=5, n_head=4, initializer_range=0.1,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    (folder / "hparams.json").write_text(json.dumps(HPARAMS))
    (folder / "context_templates.json").write_text(json.dumps(TEMPLATES))
    means = {}
    for layer in LAYERS:
        rows = torch.randn(600, 128, dtype=torch.float64) * torch.logspace(0, -2, 128, dtype=torch.float64)
        means[f"transformer.h.{layer}.mlp.c_proj.weight"] = (rows.T @ rows / len(rows)).float()
    write_covariance(folder / "covariance.safetensors", means, CovarianceMetadata())
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The federation's model folder."""
    return make_model(tmp_path_factory.mktemp("model") / "tiny")


@dataclass
class Process:
    """A running command whose lines are read as they come."""

    popen: preloaded.Forked | subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    out: list[str] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _open: int = 2
    _readers: list[threading.Thread] = field(default_factory=list)

    @classmethod
    def start(cls, *command: str | Path) -> Process:
        """Starts a command of ours."""
        popen = preloaded.start(command, env=ENVIRONMENT)
        process = cls(popen)
        for stream, kept in ((popen.stdout, process.out), (popen.stderr, process.lines)):
            reader = threading.Thread(target=process._read, args=(stream, kept), daemon=True)
            process._readers.append(reader)
            reader.start()
        return process

    def _read(self, stream, kept: list[str]) -> None:
        for line in stream:
            with self._changed:
                kept.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def wait_for(self, text: str) -> str:
        """The first line with `text`; fails where the process ends without."""

        def found() -> str | None:
            return next((line for line in (*self.out, *self.lines) if text in line), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or self._open == 0, timeout=300)
            line = found()
        assert line is not None, f"no {text!r} in:\n" + "\n".join((*self.out, *self.lines))
        return line

    def end(self) -> int:
        """Waits for the exit code and for the last lines."""
        try:
            code = self.popen.wait(timeout=300)
        except subprocess.TimeoutExpired:
            pytest.fail("did not end; it said:\n" + "\n".join((*self.out, *self.lines)))
        for reader in self._readers:
            reader.join()
        return code

    def kill(self) -> None:
        """SIGKILL."""
        self.popen.send_signal(signal.SIGKILL)
        self.end()

    @property
    def said(self) -> str:
        """Everything on standard error so far."""
        return "\n".join(self.lines)


class Host:
    """Starts processes and ends those that are left."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.model = model
        self.processes: list[Process] = []

    def start(self, *command: str | Path) -> Process:
        """Starts a command; it ends with the test at the latest."""
        process = Process.start(*command)
        self.processes.append(process)
        return process

    def server(self, *flags: str, state: str = "server") -> tuple[Process, str]:
        """A plaintext coordinator and its address."""
        process = self.start(
            BIN / "collab-server", "--insecure", "--listen", "127.0.0.1:0", "--state", self.folder / state,
            "--model", self.model, *flags,
        )  # fmt: skip
        return process, process.wait_for("listening on ").split("listening on ")[1].split()[0]

    def client(self, name: str, address: str, edits: Path, *flags: str | Path) -> Process:
        """A plaintext client with a state folder of its name."""
        return self.start(
            BIN / "collab-client", "--insecure", "--client-id", name, "--server", address, "--edits", edits,
            "--state", self.folder / name, "--model", self.model, *flags,
        )  # fmt: skip

    def close(self) -> None:
        """Ends what still runs."""
        for process in self.processes:
            if process.popen.poll() is None:
                process.kill()


@pytest.fixture
def host(tmp_path: Path, model: Path) -> Iterator[Host]:
    """This test's processes."""
    made = Host(tmp_path, model)
    yield made
    made.close()


@pytest.fixture(scope="session")
def host_of() -> type[Host]:
    """A host for a fixture that lasts longer than one test; whoever makes one closes it."""
    return Host


class RecordingProxy:
    """Passes TCP connections on to `target` and keeps every byte that goes there."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.connections: list[bytearray] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                inward, _ = self._socket.accept()
            except OSError:
                return
            outward = socket.create_connection(self._target)
            kept = bytearray()
            self.connections.append(kept)
            threading.Thread(target=self._pass, args=(inward, outward, kept), daemon=True).start()
            threading.Thread(target=self._pass, args=(outward, inward, None), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket, kept: bytearray | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if kept is not None:
                    kept += data
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def messages(self) -> bytes:
        """What the clients sent, with HTTP/2's framing taken off: the data of each stream in one piece."""
        return b"".join(data for kept in self.connections for data in _streams(bytes(kept)).values())

    def raw(self) -> bytes:
        """What the clients sent, byte for byte."""
        return b"".join(bytes(each) for each in self.connections)

    def close(self) -> None:
        """Takes no more connections."""
        self._socket.close()


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA_FRAME = 0


def _streams(sent: bytes) -> dict[int, bytes]:
    """DATA frames of a client's HTTP/2 connection, joined by stream (RFC 9113, section 4.1)."""
    assert sent.startswith(PREFACE)
    streams: dict[int, bytearray] = {}
    at = len(PREFACE)
    while at + 9 <= len(sent):
        length, kind = int.from_bytes(sent[at : at + 3], "big"), sent[at + 3]
        stream = int.from_bytes(sent[at + 5 : at + 9], "big") & 0x7FFFFFFF
        if kind == DATA_FRAME:
            streams.setdefault(stream, bytearray()).extend(sent[at + 9 : at + 9 + length])
        at += 9 + length
    return {number: bytes(data) for number, data in streams.items()}


PARTIES = ("ada", "bob", "cyd")
ONE_AT_A_TIME = ("--batch-tokens", "64")  # a kill then finds some z vectors on the disk and some not


@dataclass
class Told:
    """What a round of all parties left behind: who held which edits, what each printed, what was sent and stored."""

    host: Host
    address: str
    edits: dict[str, list[Edit]]
    results: dict[str, dict]
    proxy: RecordingProxy
    server_log: str

    @property
    def server_state(self) -> Path:
        """The server's whole state folder."""
        return self.host.folder / "server"


def parties(folder: Path) -> dict[str, list[Edit]]:
    """Eight edits for each party, also as files in `folder`."""
    edits = {name: facts(8 * index, 8) for index, name in enumerate(PARTIES)}
    for name, mine in edits.items():
        write_edits(folder / f"{name}.jsonl", mine)
    return edits


@pytest.fixture(scope="session")
def told(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """A merged round in layer-sync of three clients, one of them a process, that reached the server by the proxy."""
    with contextlib.closing(Host(tmp_path_factory.mktemp("round"), model)) as host:
        server, address = host.server("--quorum", "3", "--entry-window", "0")
        with contextlib.closing(RecordingProxy(address)) as proxy:
            edits = parties(host.folder)
            first, *others = (host.folder / f"{name}.jsonl" for name in PARTIES)
            ada = host.client("ada", proxy.address, first, "--once", "--json", *ONE_AT_A_TIME)
            threads = [
                InProcess(host, file.stem, proxy.address, file, report=host.folder / f"{file.stem}.report")
                for file in others
            ]
            results = {file.stem: each.end() for file, each in zip(others, threads, strict=True)}
            assert ada.end() == 0, ada.said
            results = {"ada": json.loads("\n".join(ada.out)), **json.loads(json.dumps(results))}
            yield Told(host, address, edits, results, proxy, "\n".join((*server.out, *server.lines)))


@dataclass(frozen=True)
class Observer:
    """Somebody in the federation who only reads: which weights a version has."""

    federation: Federation
    folder: Path

    def weights(self, version: int) -> dict[str, torch.Tensor]:
        """The published weights by name, [d_out, d_in]."""
        return {name: load_file(self._file(digest))[name] for name, digest in self.digests(version).items()}

    def digests(self, version: int) -> dict[str, str]:
        """Content addresses of the weights by name."""
        return {each.weight: each.digest for each in self.federation.version(version).layers}

    def tensor(self, digest: str) -> torch.Tensor:
        """The one tensor of a blob."""
        return next(iter(load_file(self._file(digest)).values()))

    def _file(self, digest: str) -> Path:
        return download(self.federation.connection, digest, self.folder / digest)


@contextlib.contextmanager
def observing(address: str, folder: Path, client: str = "observer") -> Iterator[Observer]:
    """An observer of the plaintext server at `address`."""
    with connect(address, None, client_id=client) as connection:
        yield Observer(Federation(connection, patience=20), folder / "observed")


def kept_targets(loaded: LoadedModel, states: Sequence[Path], edits: Sequence[Sequence[Edit]]) -> Targets:
    """The z vectors that clients found and kept, looked up in their stores: none is searched for again."""
    parts = []
    for state, mine in zip(states, edits, strict=True):
        hparams, templates = loaded.folder.preset, loaded.folder.context_templates
        assert hparams
        assert templates
        parts.append(find_targets(loaded, mine, hparams, templates, store=TargetStore(state / "targets"), batch=64))
        assert parts[-1].reused == len(mine)
    return Targets.joined(parts)


def relative_error(loaded: LoadedModel, weights: dict[str, torch.Tensor], updates: dict[str, torch.Tensor]) -> float:
    """The largest ‖(W_new − W) − Δ‖ / ‖Δ‖ over the layers; W: the model's present weights."""
    differences = {name: weights[name].double() - read_weight(loaded, name).double() for name in updates}
    return max(float((differences[name] - update).norm() / update.norm()) for name, update in updates.items())


LOADING = threading.Lock()  # transformers loads one model at a time


@pytest.fixture(scope="session", autouse=True)
def one_load_at_a_time() -> Iterator[None]:
    """Lets several clients live in threads of one process."""

    def load(folder: ModelFolder, **how: object) -> LoadedModel:
        with LOADING:
            return load_model(folder, **how)

    torch.set_num_threads(1)  # as in the processes: the same bits in both
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(crew, "load_model", load)
        yield


class InProcess:
    """A client with `--once` in a thread of the test: quicker to start than a process."""

    def __init__(self, host: Host, name: str, address: str, edits: Path, **settings: object) -> None:
        given = {"state": host.folder / name, "model": str(host.model), "batch_tokens": 64, "once": True}
        given |= {"patience": 60, **settings}  # a test that failed has no server any more
        self._config = ClientConfig(edits=edits, server=address, insecure=True, client_id=name, **given)
        self._stream = io.StringIO()
        self._pool = ThreadPoolExecutor(1)
        self._ran = self._pool.submit(run_client, self._config, Voice(self._stream))

    def end(self) -> dict:
        """The result; raises what the client raised."""
        try:
            return self._ran.result(timeout=300)
        finally:
            self._pool.shutdown(wait=False)

    @property
    def said(self) -> str:
        """Everything that it said so far."""
        return self._stream.getvalue()


def handshake(model: Path) -> tuple[str, str, str]:
    """What a client of `model` joins with for the first time."""
    return model_fingerprint(find_model(str(model))), covariance_fingerprint(model / "covariance.safetensors"), ""


def contribute_noise(federation: Federation, model: Path, round_: int, folder: Path) -> None:
    """A first layer's contribution to a round in layer-sync, of random factors of rank 8."""
    name = find_model(str(model)).edited_weights(HyperParameters.model_validate(HPARAMS))[0]
    update = factor_update(torch.randn(128, 8), torch.randn(32, 8)).to(torch.float32)
    fingerprints = dict(zip(("model_fingerprint", "covariance_fingerprint"), handshake(model), strict=False))
    said = {"schedule": "layer-sync", "round": round_, "base_version": 0, "edits": 8, "algorithm": "MEMIT"}
    write_contribution(folder / "noise", {name: update}, Metadata(**fingerprints, **said))
    digest = upload(federation.connection, folder / "noise")
    federation.contribute(round_, 0, 0, digest)


@pytest.fixture(scope="session")
def tools() -> SimpleNamespace:
    """What tests of rounds share."""
    return SimpleNamespace(
        PARTIES=PARTIES,
        ONE_AT_A_TIME=ONE_AT_A_TIME,
        BIN=BIN,
        HPARAMS=HPARAMS,
        in_process=InProcess,
        handshake=handshake,
        contribute_noise=contribute_noise,
        facts=facts,
        write_edits=write_edits,
        parties=parties,
        make_model=make_model,
        observing=observing,
        kept_targets=kept_targets,
        relative_error=relative_error,
    )
