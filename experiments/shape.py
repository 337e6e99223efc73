"""The paper's shape (its Tables 1 and 2) on the bundled model: ten parties, one round, every method.

In one process, through the engine and the merge that client and server run: layer-sync for collabedit, one-shot true
MEMIT of each party for the naive merges. The z vectors are found once, in one party's batches and in float32, and are
shared by all rows; keys are then measured in float64, so that rows differ by the merge alone and not by the rounding of
whole forward passes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from collabedit.client.targets import Targets, find_targets
from collabedit.common.edits import Edit
from collabedit.common.model_folder import find_model
from collabedit.common.pairs import EditorName, check_extent
from collabedit.experiments.baselines import (
    NAIVE,
    Bench,
    Party,
    Row,
    compare,
    everything_at_once,
    layer_by_layer,
    local_updates,
    merged_by,
    threads_of_torch,
)
from collabedit.experiments.bundled import party_edits
from collabedit.experiments.progress import Listener, ticking


@dataclass(frozen=True)
class Shape:
    """The rows, and what they are of."""

    rows: tuple[Row, ...]
    model: str
    parties: int
    edits: int
    seconds: float
    editor: EditorName = "memit"

    def as_json(self) -> dict[str, Any]:
        """The object of `collab experiment shape --json`."""
        return {
            "experiment": "shape",
            "model": self.model,
            "editor": self.editor,
            "parties": self.parties,
            "edits": self.edits,
            "targets": "found once, in one party's batches, and shared by all rows; keys measured in float64",
            "rows": [row.as_json() for row in self.rows],
            "seconds": self.seconds,
        }


def run_shape(
    model: str, parties: int, most: int | None, listener: Listener, *, threads: int, editor: EditorName = "memit"
) -> Shape:
    """Runs the experiment. most: edits of each party (None: all). Raises UsageError for ROME of more than one edit."""
    begun = time.monotonic()
    folder = find_model(model)
    dealt = party_edits(folder, parties, most)
    everybody = tuple(edit for own in dealt for edit in own)
    bench = Bench.of(folder, dtype=torch.float64, editor=editor)
    check_extent(editor, edits=len(everybody), layers=len(bench.weights))
    with threads_of_torch(threads):
        members = _dealt(dealt, _targets(Bench.of(folder), everybody, listener))
        rows = _rows(bench, members, everybody, listener)
    return Shape(tuple(rows), folder.name, parties, len(everybody), round(time.monotonic() - begun, 1), editor)


def _targets(bench: Bench, edits: Sequence[Edit], listener: Listener) -> Targets:
    listener.say(f"finding z of {len(edits)} edits, once for all rows")
    tick = ticking(listener, "finding z")
    return find_targets(bench.loaded, edits, bench.hparams, bench.templates, on_progress=tick)


def _dealt(dealt: Sequence[Sequence[Edit]], targets: Targets) -> list[Party]:
    """Each party with its own edits' z vectors."""
    members, start = [], 0
    for number, own in enumerate(dealt, start=1):
        end = start + len(own)
        held = replace(targets, z=targets.z[:, start:end], loss=targets.loss[start:end], steps=targets.steps[start:end])
        members.append(Party(f"party-{number}", tuple(own), held))
        start = end
    return members


def _rows(bench: Bench, members: Sequence[Party], edits: Sequence[Edit], listener: Listener) -> list[Row]:
    listener.say(f"merging {len(members)} parties layer by layer")
    updates = {"collabedit": layer_by_layer(bench, members)}
    listener.say("editing everything at once")
    updates["global-edit"] = everything_at_once(bench, members)
    listener.say("merging what each party gets alone")
    contributions = local_updates(bench, members, ticking(listener, "local updates"))
    updates |= {method: merged_by(method, bench, contributions) for method in NAIVE}
    return compare(bench, updates, edits, ticking(listener, "scoring methods"))
