"""What the rounds of a simulated federation did, beside what other ways of merging make of the same edits.

For a simulation whose parties keep their folders in one place: the comparison needs the union of their edits, which no
real party may see. Each round is replayed on the version that it stood on, with the parties' own z vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from collabedit.client.connection import Connection
from collabedit.client.federation import Federation
from collabedit.client.loading import load_model
from collabedit.client.model_version import Priors, VersionedModel
from collabedit.client.state import ClientState
from collabedit.client.state_folder import StateFolder
from collabedit.client.target_store import TargetStore
from collabedit.client.targets import find_targets
from collabedit.client.transfer import download
from collabedit.client.weights import read_weight
from collabedit.common.covariance_file import CovarianceFile
from collabedit.common.editors import editor_of
from collabedit.common.edits import Edit
from collabedit.common.errors import StateError, UsageError
from collabedit.common.model_folder import ModelFolder
from collabedit.experiments.baselines import Bench, Party, Row, beside_published, union
from collabedit.experiments.progress import Listener

PATIENCE = 10.0  # seconds that the server may be away


@dataclass(frozen=True)
class Replayed:
    """One published round: who was in it, with how many edits, and one row a method. `unedited` is its base version."""

    round: int
    parties: tuple[str, ...]
    edits: int
    rows: tuple[Row, ...]

    def as_json(self) -> dict[str, Any]:
        """One of the `rounds` that `--json` prints."""
        return {
            "round": self.round,
            "parties": list(self.parties),
            "edits": self.edits,
            "rows": [row.as_json() for row in self.rows],
        }


def merged_edits(parties: Path) -> dict[int, dict[str, tuple[Edit, ...]]]:
    """The edits that each round merged, by round and party, from the ledgers in `parties`/NAME/state.

    Raises StateError where there is none.
    """
    found: dict[int, dict[str, tuple[Edit, ...]]] = {}
    for folder in sorted(parties.glob("*/state")):
        with ClientState(StateFolder(folder).ledger) as state:
            merged = [each for each in state.ledger() if each.merged]
        for number in {each.version for each in merged if each.version is not None}:
            own = tuple(each.edit for each in merged if each.version == number)
            found.setdefault(number, {})[folder.parent.name] = own
    if not found:
        raise StateError(f"{parties}: no party's ledger has a merged edit", mend="run a round first")
    return dict(sorted(found.items()))


def replay(
    connection: Connection, base: ModelFolder, parties: Path, scratch: Path, listener: Listener
) -> list[Replayed]:
    """Every published round that the ledgers in `parties` know, compared; downloads go to `scratch`.

    Raises UsageError where the model's folder lacks its covariance.
    """
    rounds = merged_edits(parties)
    federation = Federation(connection, patience=PATIENCE)
    settings = federation.settings(patience=PATIENCE)
    if base.covariance is None:
        raise UsageError(f"{base.name}: no covariance in the folder")
    loaded = load_model(base)
    model = VersionedModel(loaded, settings, lambda digest: download(connection, digest, scratch / digest))
    priors = Priors(settings, CovarianceFile.open(base.covariance), model)
    bench = Bench(
        loaded, settings.hparams, settings.context_templates, {}, editor=editor_of(settings.editor, settings.hparams)
    )
    replayed, before = [], federation.version(0)
    for number, edits in rounds.items():
        listener.say(f"round {number}: {len(edits)} parties")
        after = federation.version(number)
        model.catch_up(after)
        held = {name: read_weight(loaded, name).double() for name in settings.edited_weights}
        model.catch_up(before)
        published = {name: weight - read_weight(loaded, name).double() for name, weight in held.items()}
        members = [_party(bench, name, own, parties / name / "state") for name, own in edits.items()]
        rows = beside_published(replace(bench, priors=dict(priors)), members, published, listener)
        replayed.append(Replayed(number, tuple(edits), len(union(members).edits), tuple(rows)))
        before = after
    return replayed


def _party(bench: Bench, name: str, edits: Sequence[Edit], state: Path) -> Party:
    store = TargetStore(StateFolder(state).targets)
    return Party(name, tuple(edits), find_targets(bench.loaded, edits, bench.hparams, bench.templates, store=store))
