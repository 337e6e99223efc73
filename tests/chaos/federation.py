"""A federation of processes to be killed: a server, real clients, and light parties that speak the real protocol."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from lives import Life
from safetensors.torch import save_file

from collabedit.client import transfer
from collabedit.client.connection import connect
from collabedit.client.federation import Federation
from collabedit.client.snapshot import Membership, Phase, Snapshot, Verdict
from collabedit.common.blinding import Claim, FederationKey
from collabedit.common.contribution import Metadata
from collabedit.common.contribution_file import write_contribution
from collabedit.common.errors import RoundError
from collabedit.common.factors import Factored, factor_update
from collabedit.common.model_folder import ModelFolder, find_model

MODEL: Final = "atlas"
EDITS: Final = 600  # so that an upload is three chunks
WIDE: Final = 2048
KEY: Final = FederationKey(1, bytes(range(32)))  # of federations that compare edits
PORTS: Final = range(20_000, 32_000)
PATIENCE: Final = 240.0  # seconds; a busy machine takes its time to start a server


def free_port() -> int:
    """A port of this host that nothing listens on just now, and that Linux gives nobody who asks for any: a server that
    is away comes back to it.
    """
    while True:
        with suppress(OSError), socket.create_server(("localhost", secrets.choice(PORTS))) as listener:
            return int(listener.getsockname()[1])


@dataclass
class Server:
    """A server on a state folder, on ports that stay the same: the same command each time.

    fate: the points at which its next lives end, one each, with commas between.
    """

    state: Path
    trace: Path
    flags: Sequence[str] = ()
    model: str = MODEL
    port: int = field(default_factory=free_port)
    enrol_port: int = field(default_factory=free_port)
    process: Life | None = None
    fate: str = ""

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"localhost:{self.port}"

    def start(self, fate: str = "") -> Server:
        """Starts it; it may be dead again before it serves. fate: of this life, and of those after it."""
        point, _, self.fate = fate.partition(",")
        self.process = Life(
            self.trace, point, "collab-server", "--state", str(self.state), "--model", self.model,
            "--listen", self.address, "--enrol-listen", f"localhost:{self.enrol_port}", *self.flags,
            log=self.trace.with_suffix(".log"),
        )  # fmt: skip
        return self

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def listens(self) -> bool:
        """Whether this life of it has noted that it listens."""
        with suppress(FileNotFoundError, ValueError):
            return bool(
                self.process and json.loads((self.state / "server.json").read_text())["pid"] == self.process.pid
            )
        return False

    @property
    def killed(self) -> bool:
        """Whether it is gone by SIGKILL."""
        return self.process is not None and self.process.poll() == -9

    def stop(self) -> None:
        """Ends it in whatever state it is."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@dataclass
class Light:
    """A party with random edits that depend on its name, the layer and the round alone: no model, no search.

    folder: where its uploads lie, links to those that were made before, in `store`. claims: about its edits. place: how
    many are to be in a round before it enters, so that the order is the same each time. verdicts: what it was told of
    its claims.
    """

    name: str
    state: Path
    folder: Path
    store: Path
    model: str = MODEL
    edits: int = EDITS
    claims: tuple[Claim, ...] = ()
    place: int = 0
    verdicts: list[Verdict] = field(default_factory=list)

    def play(self, server: str, version: int) -> list[tuple[str, str, tuple[str, ...]]]:
        """Takes part in rounds until `version` is published and the next round is open; returns what its layers are:
        (weight, digest, sums).

        Waits for a server that is away. Raises CollabEditError for what the protocol does not foresee.
        """
        with connect(server, self.state / "credentials") as connection:
            rounds, model = Federation(connection, patience=PATIENCE), find_model(self.model)
            settings = rounds.settings(patience=PATIENCE)
            fingerprints = (settings.model_fingerprint, settings.covariance_fingerprint, settings.federation)
            now = rounds.join(*fingerprints, self._check)
            while now.latest_version < version or now.ended:
                try:
                    now = self._step(rounds, now, settings.model_dump(), model)
                except RoundError:
                    now = rounds.now()
            self.verdicts = rounds.verdicts(0)
            return [(each.weight, each.digest, each.kkt_digests) for each in rounds.version(version).layers]

    def _step(self, rounds: Federation, now: Snapshot, settings: dict[str, object], model: ModelFolder) -> Snapshot:
        if now.phase in (Phase.OPEN, Phase.COLLECTING):
            if now.member is Membership.ABSENT and now.layer == 0 and now.members >= self.place:
                if settings["detection"] == "on-failure" and now.base_version:
                    rounds.report(now.round, now.base_version, (10, 9), self.claims, self._check)
                claims = self.claims if settings["detection"] == "pre-merge" else ()
                return rounds.enter(now.round, now.base_version, self.edits, claims, self._check)
            if now.member is Membership.ENTERED and now.settled:
                file = self._contribution(now, settings, model)
                digest = transfer.upload(rounds.connection, file, patience=PATIENCE)
                return rounds.contribute(now.round, now.attempt, now.layer, digest)
        return rounds.connection.patiently(lambda: rounds.await_change(now.revision, 5), patience=PATIENCE)

    @property
    def _check(self) -> str:
        return KEY.check if self.claims else ""

    def _contribution(self, now: Snapshot, settings: dict[str, object], model: ModelFolder) -> Path:
        """The upload of a layer: made once, linked from then on."""
        name = f"{self.name}-{now.round}-{now.layer}.safetensors"
        made, file = self.store / name, self.folder / name
        if not made.exists():
            self._make(made, now, settings, model)
        if not file.exists():
            os.link(made, file)
        return file

    def _make(self, file: Path, now: Snapshot, settings: dict[str, object], model: ModelFolder) -> None:
        weights: list[str] = settings["edited_weights"]  # type: ignore[assignment]
        layers = [now.layer] if settings["schedule"] == "layer-sync" else range(len(weights))
        seeds = {weights[layer]: f"{self.name} {layer} {now.round}" for layer in layers}
        updates = {weight: self._update(seed, weight, model) for weight, seed in seeds.items()}
        names = ["model_fingerprint", "covariance_fingerprint", "schedule", "residual_shares"]
        if settings["schedule"] == "one-shot":
            names.append("spread")
        said = {name: settings[name] for name in names}
        metadata = Metadata(**said, algorithm="MEMIT", base_version=now.base_version, round=now.round, edits=self.edits)  # type: ignore[arg-type]
        write_contribution(file, updates, metadata)

    def _update(self, seed: str, weight: str, model: ModelFolder) -> Factored:
        d_out, d_in = model.shape(weight)
        source = torch.Generator().manual_seed(zlib.crc32(seed.encode()))
        keys = torch.randn(d_in, self.edits, dtype=torch.float64, generator=source)
        residuals = torch.randn(d_out, self.edits, dtype=torch.float64, generator=source) * 1e-3
        return factor_update(keys, residuals).to(torch.float32)


def copied(template: Path, folder: Path) -> Path:
    """A state as it was, in a place of its own; whole blobs, which nobody writes to, are links."""

    def copy(source: str, target: str) -> str:
        if Path(source).parent.parent.name == "whole":
            os.link(source, target)
            return target
        return shutil.copy2(source, target)

    return Path(shutil.copytree(template, folder, copy_function=copy))


def make_wide_model(folder: Path) -> Path:
    """One layer so wide that an upload is 20 MiB; as much of a model folder as a server looks at."""
    folder.mkdir(parents=True)
    source, weight = torch.Generator().manual_seed(5), "transformer.h.0.mlp.c_proj.weight"
    stored = {weight: torch.randn(WIDE, 512, generator=source), "transformer.wte.weight": torch.zeros(5, 512)}
    save_file(stored, folder / "model.safetensors")
    save_file({f"{weight}.covariance": torch.eye(WIDE, dtype=torch.float64)}, folder / "covariance.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_layer": 1}))
    hparams = {"layers": [0], "v_num_grad_steps": 5, "v_lr": 0.5, "v_weight_decay": 0.5, "clamp_norm_factor": 0.75}
    (folder / "hparams.json").write_text(json.dumps({**hparams, "kl_factor": 0.0625, "mom2_update_weight": 100}))
    return folder


def transitions(trace: Path) -> list[str]:
    """A trace's transitions, in order, each NAME:N."""
    return [line[3:] for line in trace.read_text().splitlines() if line.startswith("at ")]


def sent_bytes(trace: Path) -> int:
    """Payload that a client's trace says was sent."""
    return sum(int(line[5:]) for line in trace.read_text().splitlines() if line.startswith("sent "))
