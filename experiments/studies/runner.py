"""Runs a study: resumable, with progress; writes results.json, table.md and plot.png."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from collabedit.common.files import write_durably
from collabedit.common.fingerprint import file_digest, model_fingerprint
from collabedit.common.model_folder import find_model
from collabedit.experiments.baselines import threads_of_torch
from collabedit.experiments.progress import Listener, ticking
from collabedit.experiments.studies.cells import CellFile, Done
from collabedit.experiments.studies.plots import picture
from collabedit.experiments.studies.settings import INCIDENTAL, StudySettings
from collabedit.experiments.studies.study import Place, Study
from collabedit.experiments.studies.tables import Row, Table

FORMAT: Final = 1  # raised when cells of earlier releases mean something else
RESULTS, TABLE, PLOT = "results.json", "table.md", "plot.png"
OF_THE_FOLDER: Final = ("hparams.json", "covariance.safetensors", "context_templates.json")


@dataclass(frozen=True)
class Results:
    """A study that has run. seconds: of all its cells, whenever they ran, and of what came before the first.

    processor: the same of the processor; None where some cells are of a release that did not keep it.
    """

    study: str
    settings: StudySettings
    rows: list[Row]
    tables: list[Table]
    notes: tuple[str, ...]
    folder: Path
    seconds: float
    processor: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The object of `collab experiment NAME --json`."""
        return {**contents(self), "out": str(self.folder), "seconds": round(self.seconds, 1)}


def contents(results: Results) -> dict[str, Any]:
    """What results.json holds: nothing that differs between two runs of the same settings."""
    return {
        "experiment": results.study,
        "settings": results.settings.model_dump(mode="json", exclude=set(INCIDENTAL)),
        "rows": results.rows,
        "notes": list(results.notes),
    }


def fingerprint(study: Study[Any], settings: StudySettings) -> str:
    """SHA-256 (hex) of what a study's cells depend on: its name and settings, the model, and the files it is given."""
    folder = find_model(settings.model)
    said: dict[str, Any] = settings.model_dump(mode="json", exclude=set(INCIDENTAL))
    given = {name: value for name, value in settings if isinstance(value, Path) and name not in INCIDENTAL}
    said |= {name: file_digest(path) for name, path in given.items() if path.is_file()}
    files = {name: file_digest(folder.path / name) for name in OF_THE_FOLDER if (folder.path / name).is_file()}
    whole = {
        "format": FORMAT,
        "release": version("collabedit"),
        "study": study.name,
        "settings": said,
        "model": model_fingerprint(folder),
        **files,
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def run(
    study: Study[Any], settings: StudySettings, listener: Listener, *, out: Path | None, targets: Path | None = None
) -> Results:
    """Runs what is not done yet in `out`, and writes its results there.

    out: None is a folder below runs/ named by the study and the settings' fingerprint, so that other settings go
    elsewhere. targets: folder of z vectors [out/targets].
    Raises MismatchError where `out` holds other settings' cells, and what the study raises.
    """
    keys, mark = list(study.keys(settings)), fingerprint(study, settings)
    folder = out or Path("runs") / f"{study.name}-{mark[:8]}"
    with CellFile.opened(folder, mark) as cells, threads_of_torch(settings.threads):
        _fill(study, settings, keys, cells, Place(folder, targets or folder / "targets", listener))
        done = {key: cells.done[key] for key in keys}
        return _written(study, settings, done, folder)


def _fill(study: Study[Any], settings: StudySettings, keys: list[str], cells: CellFile, place: Place) -> None:
    """Runs the cells that are missing."""
    missing = [key for key in keys if key not in cells.done]
    if len(missing) < len(keys):
        place.listener.say(f"{study.name}: {len(keys) - len(missing)} of {len(keys)} cells are done already")
    if not missing:
        return
    tick, since = ticking(place.listener, study.name), _spent()
    work = study.begin(settings, place)
    for key in missing:
        cell = work(key)
        now = _spent()
        cells.add(key, cell, now[0] - since[0], now[1] - since[1])
        since = now
        tick(len(cells.done), len(keys))


def _spent() -> tuple[float, float]:
    """Seconds so far: by the clock, and of the processor, with those of processes that this one has waited for."""
    return time.monotonic(), sum(os.times()[:4])


def _written(study: Study[Any], settings: StudySettings, done: Mapping[str, Done], folder: Path) -> Results:
    rows = study.rows(settings, {key: each.cell for key, each in done.items()})
    seconds = sum(each.seconds for each in done.values())
    kept = [each.processor for each in done.values() if each.processor is not None]
    processor = sum(kept) if len(kept) == len(done) else None
    tables, notes = study.tables(settings, rows), tuple(study.notes(settings, rows))
    results = Results(study.name, settings, rows, tables, notes, folder, seconds, processor)
    text = json.dumps(contents(results), ensure_ascii=False, indent=1) + "\n"
    write_durably(folder / RESULTS, text.encode())
    write_durably(folder / TABLE, markdown(results).encode())
    picture(folder / PLOT, lambda figure: study.draw(settings, rows, figure))
    return results


def markdown(results: Results) -> str:
    """The tables and the notes below them."""
    parts = [table.markdown() for table in results.tables] + list(results.notes)
    return "\n\n".join(parts) + "\n"
