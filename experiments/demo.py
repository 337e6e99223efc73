"""The demo: one layer-sync round between real processes, and what the other ways of merging make of the same edits."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from collabedit.client.metrics import Scores
from collabedit.client.target_store import TargetStore
from collabedit.client.targets import Targets, find_targets
from collabedit.common.edits import Edit
from collabedit.common.errors import UsageError
from collabedit.common.model_folder import ModelFolder, find_model
from collabedit.experiments import federation_processes as processes
from collabedit.experiments.baselines import (
    NAIVE,
    Bench,
    Party,
    Row,
    beside_published,
    distance,
    everything_at_once,
    threads_of_torch,
    union,
)
from collabedit.experiments.bundled import party_edits, party_files, party_lines
from collabedit.experiments.progress import Listener, ticking

PARTIES: Final = 3
MIN_EDITS: Final = 8
ORDER: Final = ("unedited", "collabedit", "global-edit", *NAIVE)


@dataclass(frozen=True)
class Loaded:
    """How the exported model is used: three lines of Python, the fact that they ask, and what came out."""

    code: str
    prompt: str
    target: str
    answer: str


@dataclass(frozen=True)
class Demo:
    """What the demo found. afresh: the distance of `collabedit` to the edit by one party that searched for every z
    itself, in batches of its own. seconds: by step.
    """

    rows: tuple[Row, ...]
    edits: int
    afresh: float
    model: Path
    loaded: Loaded
    seconds: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """The object of `collab demo --json`."""
        return {
            "rows": [row.as_json() for row in self.rows],
            "parties": PARTIES,
            "edits": self.edits,
            "distance_with_fresh_targets": self.afresh,
            "model": str(self.model),
            "question": self.loaded.prompt,
            "target": self.loaded.target,
            "answer": self.loaded.answer,
            "seconds": self.seconds,
        }


class _Clock:
    """Seconds by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.monotonic()

    def lap(self, step: str) -> None:
        now = time.monotonic()
        self.seconds[step] = round(now - self._since, 1)
        self._since = now


def run_demo(folder: Path, model: str, most: int | None, listener: Listener, *, threads: int) -> Demo:
    """Runs the demo in `folder`, which keeps the states, the logs and the exported model.

    model: a folder or name with edits for three parties. most: edits of each party (None: all).
    threads: CPU threads of every process, this one too.
    Raises ChildFailedError with its last lines where a process fails; every process is stopped by then.
    """
    clock, base = _Clock(), find_model(model)
    names = [f"party-{number}" for number in range(1, PARTIES + 1)]
    edits = party_edits(base, PARTIES, most)
    exported = folder / "model"
    if exported.exists():
        raise UsageError(f"{exported}: is there already", mend="give --keep another folder")
    files = _deal(base, folder, names, most)
    _round(folder, model, names, files, [len(each) for each in edits], exported, listener, threads, clock)
    with threads_of_torch(threads):
        rows, afresh = _compared(base, folder, names, edits, exported, listener, clock)
    listener.say("asking the exported model")
    everybody = [edit for own in edits for edit in own]
    loaded = _ask(exported, everybody, rows["collabedit"].scores)
    clock.lap("asking")
    ordered = tuple(rows[method] for method in ORDER)
    return Demo(ordered, len(everybody), afresh, exported, loaded, clock.seconds)


def _deal(base: ModelFolder, folder: Path, names: Sequence[str], most: int | None) -> list[Path]:
    """Writes each party's edits into its folder."""
    files = []
    for name, source in zip(names, party_files(base, PARTIES), strict=True):
        (folder / name).mkdir(parents=True, exist_ok=True)
        files.append(folder / name / "mine.jsonl")
        files[-1].write_text("".join(party_lines(source, most)), encoding="utf-8")
    return files


def _round(
    folder: Path, model: str, names: Sequence[str], files: Sequence[Path], counts: Sequence[int], exported: Path,
    listener: Listener, threads: int, clock: _Clock,
) -> None:  # fmt: skip
    """One round between a server and three clients in processes of their own, and its export."""
    flags = ("--quorum", str(PARTIES), "--entry-window", "1", "--min-edits", str(min(MIN_EDITS, *counts)))
    listener.say("starting a server: it makes the federation's certificate authority")
    with processes.running(folder, model, flags, threads=threads) as federation:
        listener.say(f"enrolling {PARTIES} parties: one token, and a certificate each")
        federation.enrol(names)
        clock.lap("starting and enrolling")
        listener.say(f"starting {PARTIES} clients: mutual TLS, one layer-sync round")
        for name, file in zip(names, files, strict=True):
            federation.start_client(name, file, model)
        federation.wait(counts, listener.party)
        clock.lap("round")
        listener.say("exporting the published round as a Hugging Face model folder")
        federation.export(names[0], model, exported)
    clock.lap("exporting")


def _compared(
    base: ModelFolder, folder: Path, names: Sequence[str], edits: Sequence[tuple[Edit, ...]], exported: Path,
    listener: Listener, clock: _Clock,
) -> tuple[dict[str, Row], float]:  # fmt: skip
    """The rows by method, and the distance with z vectors found afresh."""
    bench = Bench.of(base)
    parties = [
        Party(name, own, _stored_targets(bench, own, folder / name / "state" / "targets"))
        for name, own in zip(names, edits, strict=True)
    ]
    everybody = union(parties).edits
    published = _published(base, exported, bench.weights)
    listener.say("editing everything at once with the parties' own z vectors, and merging naively, to compare")
    rows = {row.method: row for row in beside_published(bench, parties, published, listener)}
    clock.lap("comparing")
    afresh = _afresh(bench, everybody, published, listener)
    clock.lap("finding z afresh")
    return rows, afresh


def _stored_targets(bench: Bench, edits: Sequence[Edit], folder: Path) -> Targets:
    """The z vectors that a party's client found, from its state folder."""
    return find_targets(bench.loaded, edits, bench.hparams, bench.templates, store=TargetStore(folder))


def _published(base: ModelFolder, exported: Path, weights: Sequence[str]) -> dict[str, Tensor]:
    """What the round changed: the exported weights minus the base's, float64."""
    edited = ModelFolder(exported, "exported")
    return {weight: edited.weight(weight).double() - base.weight(weight).double() for weight in weights}


def _afresh(bench: Bench, edits: Sequence[Edit], published: dict[str, Tensor], listener: Listener) -> float:
    """The distance to the edit by one party that finds every z itself, in batches of its own."""
    listener.say("finding every z afresh, in one party's batches")
    tick = ticking(listener, "finding z afresh")
    targets = find_targets(bench.loaded, edits, bench.hparams, bench.templates, on_progress=tick)
    return distance(published, everything_at_once(bench, [Party("one", tuple(edits), targets)]))


def _ask(exported: Path, edits: Sequence[Edit], scores: Scores) -> Loaded:
    """Runs the three lines of Python that load the exported model, and keeps what they print."""
    sure = max(range(len(edits)), key=lambda index: (scores.edits[index].correct, scores.edits[index].probability))
    edit = edits[sure]
    code = (
        "from transformers import pipeline\n"
        f"ask = pipeline('text-generation', model={str(exported)!r})\n"
        f"print(ask({edit.text!r}, max_new_tokens=6, do_sample=False)[0]['generated_text'])"
    )
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise processes.ChildFailedError(f"{exported}: does not load: {ran.stderr.strip().splitlines()[-1:]}")
    return Loaded(code, edit.text, edit.target_new, ran.stdout.strip())
