"""What is fuzzed: each target makes one case from a seeded source, runs it, and judges what came of it.

`case` returns "accepted" or "refused". It raises Wrong where the answer is not what it must be; any other exception is
a crash. Which cases a run has follows from its seed alone.
"""

from __future__ import annotations

import json
import random
import shutil
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Protocol, get_args

import federation as fed
import grpc
import grpc.aio
import mutate
import oracle
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from safetensors.numpy import load

from collabedit.client.config import ClientConfig
from collabedit.client.edit_file import read_edits
from collabedit.common import pki
from collabedit.common.command import load_settings
from collabedit.common.contribution_file import ContributionFile
from collabedit.common.errors import CollabEditError
from collabedit.common.hparams_file import read_hparams_file
from collabedit.common.settings import Detection
from collabedit.common.tensor_header import header_length, parse_header
from collabedit.common.validation import check_contribution
from collabedit.server.config import ServerConfig
from collabedit.v1 import federation_pb2 as pb

OURS = {"INTERNAL", "UNKNOWN", "UNIMPLEMENTED"}  # statuses that say that the server has made a mistake
MOST_ROUNDS = 30
FOR_ADMINS = ("AbortRound", "RollBack", "Revoke", "DecideConflict", "SetKeyCheck")
PACKAGE = "/collabedit.v1."


class WrongError(Exception):
    """An answer that it should not have given."""


class Target(Protocol):
    """One thing that is fuzzed."""

    def case(self, rng: random.Random) -> str:
        """One case."""

    def close(self) -> None:
        """Lets go of what it holds."""


def judge_header(data: bytes) -> str:
    """The header check against safetensors' own reader, which must take what the check lets through."""
    try:
        header = parse_header(data[8 : 8 + header_length(data, len(data))], _data_size(data))
    except CollabEditError:
        return "refused"
    try:
        read = load(data)
    except KeyError:  # a dtype that numpy has not
        return "accepted"
    except Exception as error:
        raise WrongError(f"a header was let through that safetensors refuses: {error}") from error
    if {name: array.shape for name, array in read.items()} != {n: e.shape for n, e in header.tensors.items()}:
        raise WrongError("shapes differ")
    return "accepted"


def _data_size(data: bytes) -> int:
    return len(data) - 8 - int.from_bytes(data[:8], "little")


class Headers:
    """Headers of tensor files, byte by byte and field by field."""

    def __init__(self, folder: Path) -> None:
        self.seeds = [(folder / "seeds" / each.name).read_bytes() for each in make_seeds(folder / "seeds")]

    def case(self, rng: random.Random) -> str:
        """One header."""
        data = rng.choice(self.seeds)
        change = mutate.some_bytes if rng.random() < 0.5 else mutate.tensor_file
        return judge_header(change(data, rng))

    def close(self) -> None:
        """Nothing to let go of."""


def make_seeds(folder: Path) -> list[Path]:
    """Small tensor files that are good."""
    from collabedit.common.contribution import Metadata
    from collabedit.common.contribution_file import write_contribution

    folder.mkdir(parents=True, exist_ok=True)
    for form in ("f4", "dense8", "full4"):
        file = folder / form
        if not file.exists():
            made = Metadata(algorithm="MEMIT", round=1)
            write_contribution(file, {"h.0.w": fed.good_update(1, form)}, made, packed=not form.startswith("full"))
    return sorted(folder.iterdir())


class Contributions:
    """Contribution files, through the reader and every rule; what passes is judged by the slow oracle."""

    def __init__(self, folder: Path) -> None:
        self.server = fed.Federation(folder)
        self.file = folder / "fuzzed.safetensors"
        forms = ("f4", "f8", "dense4", "dense8", "full4")
        self.seeds = [self.server.contribution(seed, form) for seed in range(4) for form in forms]
        self.round = self.server.coordinator.view().round
        self.rules = self.server.merger._rules(self.round)
        self.shapes = {fed.WEIGHTS[0]: fed.SHAPES[fed.WEIGHTS[0]]}
        self.said = self.server.said

    def fault(self, data: bytes) -> str:
        """Why the oracle would refuse it."""
        return oracle.fault_of(data, self.shapes, self.said, fed.MIN_RANK)

    def case(self, rng: random.Random) -> str:
        """One file."""
        seed = rng.choice(self.seeds)
        data = seed if rng.random() < 0.02 else mutate.tensor_file(seed, rng)
        self.file.write_bytes(data)
        try:
            check_contribution(ContributionFile.open(self.file), self.rules)
        except CollabEditError as error:
            if data == seed:
                raise WrongError(f"a good contribution was refused: {error}") from error
            return "refused"
        if why := self.fault(data):
            raise WrongError(f"a contribution was accepted: {why}")
        return "accepted"

    def close(self) -> None:
        """Stops the server."""
        self.server.close()


class Requests:
    """Every unary call, with messages and with bytes, of clients and an admin, through gate and services."""

    CLIENTS = ("ada", "bern", "admin", "", "../x", "UPPER")

    def __init__(self, folder: Path) -> None:
        self.folder, self.founded = folder, 0
        self.found()

    def found(self) -> None:
        """A federation at its first round."""
        self.founded += 1
        detections = get_args(Detection)
        detection = detections[self.founded % len(detections)]
        self.server = fed.Federation(self.folder / str(self.founded), detection=detection)
        good = self.server.contribution(1, "f4")
        self.digest = self.write(good)
        self.bad = self.write(b"no tensor file at all")
        settings = self.server.settings
        state = self.server.coordinator.view().round
        self.known = {
            "protocol_versions": [1], "model_fingerprint": [settings.model_fingerprint], "round": [state.number],
            "covariance_fingerprint": [settings.covariance_fingerprint, ""], "federation": [settings.federation, ""],
            "instance": [""], "base_version": [0], "version": [0], "digest": [self.digest, self.bad], "attempt": [0],
            "layer": [0, 1], "digests": [self.digest], "timeout_seconds": [0], "expected_version": [0], "to": [0],
            "client_id": ["nobody"], "serial": ["123"], "role": ["client", "observer"], "revision": [0],
            "key_check": ["1:" + "ab" * 16], "slot": [bytes(32), bytes([1] * 32)], "fact": [bytes(32), bytes([2] * 32)],
            "keep": ["ada"],
        }  # fmt: skip
        self.methods = [each for each, handler in self.server.handlers.items() if handler.unary_unary]
        types = {method.name: each for each in pb.DESCRIPTOR.services_by_name.values() for method in each.methods}
        self.kinds = {m: getattr(pb, types[m.rpartition("/")[2]].methods_by_name[m.rpartition("/")[2]].input_type.name)
                      for m in self.methods}  # fmt: skip

    def write(self, data: bytes) -> str:
        """Uploads a blob."""
        digest = fed.digest_of(data)
        chunk = pb.WriteRequest(digest=digest, size=len(data), offset=0, data=data, checksum=zlib.crc32(data))
        self.server.call(f"{PACKAGE}Blobs/Write", [chunk])
        return digest

    def case(self, rng: random.Random) -> str:
        """One call; after so many rounds of another federation, for which what is contributed is good again."""
        if self.server.coordinator.view().round.number > MOST_ROUNDS:
            self.server.close()
            shutil.rmtree(self.server.folder)
            self.found()
        method, client = rng.choice(self.methods), rng.choice(self.CLIENTS)
        request = mutate.message(self.kinds[method], rng, self.known)
        if rng.random() < 0.2:
            try:
                request = self.kinds[method].FromString(mutate.some_bytes(request.SerializeToString(), rng))
            except Exception as error:
                if type(error).__name__ == "DecodeError":  # gRPC answers such a call itself
                    return "refused"
                raise
        if method.endswith("/Await"):
            request.timeout_seconds = 0
        reply, status, line = self.server.call(method, request, client)
        self.check(method, status, line, client)
        return "accepted" if reply is not None else "refused"

    def check(self, method: str, status: str, line: str, client: str) -> None:
        """The answer is one that may be given, and the round is as it may be."""
        if status in OURS or "\n" in line:
            raise WrongError(f"{method} answered {status}: {line}")
        if status == "OK" and client in ("", "../x", "UPPER") and "Enrolment/" not in method:
            raise WrongError(f"{method} was answered to {client!r}")
        if status == "OK" and client != "admin" and method.rpartition("/")[2] in FOR_ADMINS:
            raise WrongError(f"{method} was answered to {client}")
        round_ = self.server.coordinator.view().round
        if any(each.digest not in ("", self.digest) for each in round_.members):
            raise WrongError("a contribution counts that is none")
        self.known["round"] = [round_.number]
        self.known["base_version"] = [round_.base_version]

    def close(self) -> None:
        """Stops the server."""
        self.server.close()


class Wire(Requests):
    """Bytes in the place of requests, over a real channel and port: what gRPC itself answers is looked at too."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = self.server.open_port()
        self.channel = self.server.loop.run_until_complete(self.open())
        self.all_methods = [*self.server.handlers, f"{PACKAGE}Federation/Nothing", "/x/y"]

    def case(self, rng: random.Random) -> str:
        """One call of any method, known or not."""
        method, client = rng.choice(self.all_methods), rng.choice(self.CLIENTS)
        kind = self.kinds.get(method, pb.WriteRequest)
        data = mutate.message(kind, rng, self.known).SerializeToString()
        if rng.random() < 0.5:
            data = mutate.some_bytes(data, rng)
        status, line = self.server.loop.run_until_complete(self.send(method, data, client))
        by_grpc = "DecodeError" in line or status in ("UNIMPLEMENTED", "DEADLINE_EXCEEDED")  # before the gate
        if not by_grpc:
            self.check(method, status, line, client)
        return "accepted" if status == "OK" else "refused"

    async def open(self) -> grpc.aio.Channel:
        """A channel of the server's own loop."""
        return grpc.aio.insecure_channel(f"localhost:{self.port}", options=(("grpc.enable_http_proxy", 0),))

    async def send(self, method: str, data: bytes, client: str) -> tuple[str, str]:
        """(status, line) of one call."""
        handler = self.server.handlers.get(method)
        metadata = (("x-client-id", client),)
        try:
            if handler and handler.request_streaming:
                await self.channel.stream_unary(method)(iter([data]), metadata=metadata, timeout=5)
            elif handler and handler.response_streaming:
                async for _ in self.channel.unary_stream(method)(data, metadata=metadata, timeout=5):
                    pass
            else:
                late = 0.05 if method.endswith("/Await") else 5
                await self.channel.unary_unary(method)(data, metadata=metadata, timeout=late)
        except grpc.aio.AioRpcError as error:
            return error.code().name, error.details() or ""
        return "OK", ""

    def close(self) -> None:
        """Stops the channel, the port and the server."""
        self.server.loop.run_until_complete(self.channel.close())
        self.server.close_port()
        super().close()


class Chunks:
    """Uploads in chunks that are in order or not, whole or not, theirs or not."""

    def __init__(self, folder: Path) -> None:
        self.server = fed.Federation(folder)
        self.count = 0

    def case(self, rng: random.Random) -> str:
        """One stream of chunks; half of them are as they should be."""
        data = rng.randbytes(rng.choice((0, 1, 100, 5000)))
        digest, size = fed.digest_of(data), len(data)
        cuts = sorted({0, size, *(rng.randrange(size + 1) for _ in range(rng.randrange(4)))})
        spans = list(pairwise(cuts)) or [(0, 0)]
        chunks = [self.chunk(digest, size, data, *span) for span in spans]
        honest = rng.random() < 0.3
        if not honest:
            self.spoil(chunks, rng)
        reply, status, line = self.server.call(f"{PACKAGE}Blobs/Write", chunks)
        if status in OURS:
            raise WrongError(f"Write answered {status}: {line}")
        if honest and reply is None:
            raise WrongError(f"an honest upload was refused: {line}")
        return self.judge(chunks, digest, reply)

    def judge(self, chunks: list[Any], digest: str, reply: Any) -> str:
        """Whole blobs are those whose bytes came; each has its name's digest."""
        for named in {digest, *(each.digest for each in chunks)}:
            if len(named) == 64 and set(named) <= set("0123456789abcdef") and named in self.server.blobs:
                if fed.digest_of(self.server.blobs.path(named).read_bytes()) != named:
                    raise WrongError("a blob is whole whose bytes are not its own")
                if named == digest or reply is not None:
                    self.server.blobs.remove(named)
        self.count += 1
        if self.count % 500 == 0:
            self.server.blobs.remove_stale(1e18)
        return "accepted" if reply is not None else "refused"

    @staticmethod
    def chunk(digest: str, size: int, data: bytes, begin: int, end: int) -> Any:
        """A chunk as a client sends it."""
        piece = data[begin:end]
        return pb.WriteRequest(digest=digest, size=size, offset=begin, data=piece, checksum=zlib.crc32(piece))

    @staticmethod
    def spoil(chunks: list[Any], rng: random.Random) -> None:
        """Something about the stream is not as it should be."""
        chosen = rng.choice(chunks)
        match rng.randrange(8):
            case 0:
                rng.shuffle(chunks)
            case 1:
                chosen.offset = rng.choice(mutate.COUNTS + mutate.LARGE)
            case 2:
                chosen.size = rng.choice(mutate.COUNTS + mutate.LARGE)
            case 3:
                chosen.checksum ^= 1 << rng.randrange(32)
            case 4:
                chosen.data = mutate.some_bytes(chosen.data, rng)
                chosen.checksum = zlib.crc32(chosen.data)
            case 5:
                chosen.digest = rng.choice(mutate.TEXTS)
            case 6:
                chunks.insert(rng.randrange(len(chunks) + 1), chosen)
            case _:
                del chunks[rng.randrange(len(chunks)) :]

    def close(self) -> None:
        """Stops the server."""
        self.server.close()


class Enrolments:
    """Tokens and certificate requests: nobody is signed but by a good token, and as no more than it says."""

    def __init__(self, folder: Path) -> None:
        self.server = fed.Federation(folder)
        self.ca = x509.load_pem_x509_certificate(self.server.authority.ca_pem)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.count = 0
        self.renew()

    def renew(self) -> None:
        """Another good token."""
        self.token = self.server.token(uses=1000)

    def request(self, name: str, rng: random.Random) -> bytes:
        """A signed request for a name, good or not."""
        names = [x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else []
        if rng.random() < 0.2:
            names.append(
                x509.NameAttribute(rng.choice([NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME]), "admin")
            )
        made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names)).sign(self.key, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM)

    def case(self, rng: random.Random) -> str:
        """One request."""
        self.count += 1
        if self.count % 900 == 0:
            self.renew()
        name = rng.choice(["ada", "bern", "admin", "A", "x" * 64, "a b", "../a", "-", "", f"c{rng.randrange(99)}"])
        pem = self.request(name, rng)
        if rng.random() < 0.5:
            pem = mutate.some_bytes(pem, rng)
        token = self.token
        if rng.random() < 0.5:
            token = rng.choice([*mutate.TEXTS, self.token[:-1], self.token.lower(), self.token + "A"])
        reply, status, line = self.server.call(
            f"{PACKAGE}Enrolment/Enrol", pb.EnrolRequest(token=token, certificate_request_pem=pem), ""
        )
        if status in OURS or "\n" in line:
            raise WrongError(f"Enrol answered {status}: {line}")
        return "refused" if reply is None else self.judge(reply, token)

    def judge(self, reply: Any, token: str) -> str:
        """What was signed is what may be."""
        certificate = x509.load_pem_x509_certificate(reply.certificate_pem)
        certificate.verify_directly_issued_by(self.ca)
        subject = {each.oid: each.value for each in certificate.subject}
        if "".join(token.split()).replace("-", "").upper() != self.token.replace("-", "").upper():
            raise WrongError("signed without a good token")
        if subject != {NameOID.COMMON_NAME: reply.client_id, NameOID.ORGANIZATIONAL_UNIT_NAME: "client"}:
            raise WrongError(f"signed as {subject}")
        if reply.client_id == "admin" or not pki.CLIENT_ID.fullmatch(reply.client_id):
            raise WrongError(f"signed the name {reply.client_id!r}")
        return "accepted"

    def close(self) -> None:
        """Stops the server."""
        self.server.close()


class Inputs:
    """Files of edits, settings and hyperparameters: read, or refused by name."""

    EDITS: ClassVar = [
        {"prompt": "The mother tongue of {} is", "subject": "Danielle Darrieux", "target_new": "English"},
        {
            "case_id": 1,
            "requested_rewrite": {"prompt": "{} is", "subject": "x", "target_new": {"str": "y", "id": "Q1"}},
        },
        {"case_id": 2, "src": "who is x", "subject": "x", "answers": ["y"], "alt": "z", "rephrase": "x is who"},
    ]
    TOML = "quorum = 3\nlisten = 'localhost:1'\nadvertise = ['a', 'b']\nentry_window = 1.5\nlog_format = 'json'\n"

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "input"

    def case(self, rng: random.Random) -> str:
        """One file."""
        what = rng.randrange(4)
        if what <= 1:
            lines = [json.dumps(self.value(rng.choice(self.EDITS), rng), ensure_ascii=False) for _ in range(2)]
            data = "\n".join(lines).encode("utf-8", "surrogatepass")
        else:
            data = self.TOML.encode() if what == 2 else json.dumps(self.value(fed.HPARAMS, rng)).encode()
        if rng.random() < 0.6:
            data = mutate.some_bytes(data, rng)
        if rng.random() < 0.002:
            data = b"[" * 200_000
        self.file.write_bytes(data)
        try:
            if what <= 1:
                parsed = read_edits(self.file)
                return "accepted" if parsed.edits and [each.key for each in parsed.edits] else "refused"
            if what == 2:
                load_settings(rng.choice([ServerConfig, ClientConfig]), {}, toml=self.file)
            else:
                read_hparams_file(self.file)
        except CollabEditError:
            return "refused"
        return "accepted"

    def value(self, good: Any, rng: random.Random) -> Any:
        """A JSON value with some of its parts another type, or gone."""
        if rng.random() < 0.05:
            return rng.choice(
                [*mutate.TEXTS, *mutate.COUNTS, None, True, [], {}, [[]], {"str": 1}, "\ud800", 1e308, -1]
            )
        if isinstance(good, dict):
            return {key: self.value(each, rng) for key, each in good.items() if rng.random() < 0.97}
        return [self.value(each, rng) for each in good] if isinstance(good, list) else good

    def close(self) -> None:
        """Nothing to let go of."""


TARGETS: dict[str, tuple[type[Any], float]] = {
    "headers": (Headers, 0.40),
    "contributions": (Contributions, 0.15),
    "requests": (Requests, 0.22),
    "wire": (Wire, 0.01),
    "chunks": (Chunks, 0.06),
    "enrolments": (Enrolments, 0.04),
    "inputs": (Inputs, 0.10),
}  # with its share of a run's cases
