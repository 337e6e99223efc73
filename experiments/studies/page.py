"""docs/results.md: every registered study's runs, with the text that stands beside its code."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from collabedit.common.errors import MismatchError
from collabedit.common.files import write_durably
from collabedit.experiments.progress import Listener
from collabedit.experiments.studies.registry import STUDIES, Registration, study_of
from collabedit.experiments.studies.runner import PLOT, Results, markdown, run

PAGE, IMAGES, REAL_SCALE = "results.md", "images/results", "real-scale.md"
TARGETS: Final = "targets"
MADE: Final = "<!-- `make experiments` writes this page; each study's text stands beside its code. -->"
INTRODUCTION: Final = """\
The paper's tables and figures, run anew. `make experiments` runs all of them on the bundled model and writes this page;
the command of each stands below it, and takes `--model` and `--records` for other models and data sets
([how to](how-to/reproduce-the-paper.md)). The bundled model is small and knows an invented world by heart: compare how
methods lie to each other, not the figures with the paper's.

Scores are fractions of 1. In brackets: 95 % intervals by the bootstrap over records, Score resampled jointly; they say
how much other edits of the same kind might differ, and methods share the same edits. A dash is a figure that is not
there. Times are seconds by the clock, of one CPU thread, beside whatever else the machine ran: upper bounds. What they
took of the processor stands beside them where it was kept."""


@dataclass(frozen=True)
class Ran:
    """One run of a study, by its folder's name."""

    name: str
    flags: Mapping[str, Any]
    results: Results


def write_page(runs: Path, docs: Path, listener: Listener, *, fresh: bool = False) -> list[Ran]:
    """Runs what is not done yet below `runs`, and writes the page and its plots into `docs`.

    fresh: cells of earlier runs are removed first; z vectors are kept.
    """
    ran: dict[str, list[Ran]] = {}
    for name, registered in STUDIES.items():
        for folder, flags in registered.runs.items():
            listener.say(f"{folder}:")
            ran.setdefault(name, []).append(_run(name, registered, runs / folder, flags, listener, fresh=fresh))
    images = docs / IMAGES
    images.mkdir(parents=True, exist_ok=True)
    for each in (each for own in ran.values() for each in own):
        shutil.copyfile(each.results.folder / PLOT, images / f"{each.name}.png")
    write_durably(docs / PAGE, page(ran, runs, _real_scale(docs)).encode())
    return [each for own in ran.values() for each in own]


def _run(
    name: str, registered: Registration, folder: Path, flags: Mapping[str, Any], listener: Listener, *, fresh: bool
) -> Ran:
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    settings = registered.settings.model_validate(flags)
    start = partial(run, study_of(name), settings, listener, out=folder, targets=folder.parent / TARGETS)
    try:
        results = start()
    except MismatchError:
        listener.say(f"{folder}: of other settings, another model or release: run anew")
        shutil.rmtree(folder)
        results = start()
    return Ran(folder.name, flags, results)


def page(ran: Mapping[str, list[Ran]], runs: Path, real_scale: str = "") -> str:
    """The page. real_scale: a section of its own, from the top of docs/real-scale.md."""
    parts = ["# Results", MADE, INTRODUCTION]
    for name, own in ran.items():
        study = study_of(name)
        parts += [f"## {study.title}", study.text]
        for each in own:
            parts += _section(study.title, each, runs, name)
    return "\n\n".join([*parts, *([real_scale] if real_scale else [])]) + "\n"


def _section(title: str, ran: Ran, runs: Path, name: str) -> Iterator[str]:
    yield f"```sh\n{command(name, ran.name, ran.flags, runs)}\n```"
    yield markdown(ran.results).rstrip()
    yield f"![{title}]({IMAGES}/{ran.name}.png)"
    processor = ran.results.processor
    yield f"{ran.results.seconds:.0f} s" + ("." if processor is None else f", {processor:.0f} s of the processor.")


def command(name: str, folder: str, flags: Mapping[str, Any], runs: Path) -> str:
    """What a reader types for one run."""
    given = [
        f"--{flag.replace('_', '-')}" + ("" if value is True else f" {value}") for flag, value in flags.items() if value
    ]
    return " ".join(["collab experiment", name, *given, f"--out {runs / folder} --targets {runs / TARGETS}"])


def _real_scale(docs: Path) -> str:
    """The section on the run at real scale, which is written where that ran."""
    file = docs / REAL_SCALE
    return file.read_text(encoding="utf-8").strip() if file.is_file() else ""
