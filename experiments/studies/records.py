"""The edits of a study, dealt to parties: from the bundled model's world, or from a data set on disk."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from collabedit.common.edits import Edit, parse_record
from collabedit.common.errors import UsageError
from collabedit.common.model_folder import ModelFolder, bundled_models, find_model
from collabedit.experiments.bundled import FOLDERS, party_edits
from collabedit.experiments.data import Name, load
from collabedit.experiments.studies.settings import RecordSet, StudySettings

Dealt = tuple[tuple[Edit, ...], ...]  # by party
TEXTS = 500  # at most, about others


def data_folder(settings: StudySettings) -> Path:
    """The folder of the data sets. Raises UsageError where there is none."""
    folder = settings.data or Path(os.environ.get("COLLAB_DATA", "../shared/data"))
    if not folder.is_dir():
        raise UsageError(f"{folder}: no folder of data sets", mend="give --data, or set COLLAB_DATA")
    return folder


def dealt(settings: StudySettings, parties: int, per_party: int, records: RecordSet | None = None) -> Dealt:
    """So many edits for each of so many parties. records: in place of the settings'.

    Of the bundled model: the party edits in its folder, where they are a deal of that size; else edits about its world
    in the same form, dealt by the seed. Raises UsageError where there are not enough.
    """
    name = records or settings.records
    if name == "bundled":
        return _bundled(find_model(settings.model), parties, per_party, settings.seed)
    return split(_loaded(name, settings, parties * per_party), parties, per_party)


def dealt_questions(settings: StudySettings, parties: int, per_party: int) -> Dealt:
    """The same in zsRE's shape: questions about the bundled model's world, or zsRE itself."""
    if settings.records == "bundled":
        from collabedit.experiments.atlas.questions import questions
        from collabedit.experiments.atlas.world import build_world

        _demand_atlas(find_model(settings.model))
        world, count = build_world(), parties * per_party
        _demand(count, len(world.subjects) // 2, "the bundled model's world")
        return split(questions(world, count, settings.seed), parties, per_party)
    return split(_loaded("zsre", settings, parties * per_party), parties, per_party)


def further(settings: StudySettings, count: int, seed: int) -> tuple[Edit, ...]:
    """So many edits without overlap or conflict, by a seed: for many rounds, several of one person's relations too."""
    if settings.records != "bundled":
        return _loaded(settings.records, settings.model_copy(update={"seed": seed}), count)
    from collabedit.experiments.atlas.edits import many
    from collabedit.experiments.atlas.world import build_world

    _demand_atlas(find_model(settings.model))
    world = build_world()
    _demand(count, len(world.subjects) // 2 * len(world.relations), "the bundled model's world")
    return tuple(parse_record(record) for record in many(world, count, seed))


def other_text(settings: StudySettings, edits: Sequence[Edit]) -> tuple[str, ...]:
    """Texts about nobody that the edits are about: sentences of the bundled model's world, or Wikipedia articles.

    Raises UsageError where the data folder has none.
    """
    subjects = {edit.subject for edit in edits}
    if settings.records == "bundled":
        from collabedit.experiments.atlas.text import documents
        from collabedit.experiments.atlas.world import build_world

        _demand_atlas(find_model(settings.model))
        texts: Iterable[str] = documents(build_world(), settings.seed, sentences=1)
    else:
        file = data_folder(settings) / "corpus" / "wikipedia_val.txt"
        if not file.is_file():
            raise UsageError(f"{file}: no such file", mend="give --data the folder of the data sets")
        texts = file.read_text(encoding="utf-8").split("\n\n\n")
    others = (each for each in texts if each.strip() and not any(subject in each for subject in subjects))
    return tuple(islice(others, TEXTS))


def split(edits: Sequence[Edit], parties: int, per_party: int) -> Dealt:
    """The first edits for the first party, the next for the second, and so on."""
    return tuple(tuple(edits[start : start + per_party]) for start in range(0, parties * per_party, per_party))


def _loaded(name: Name, settings: StudySettings, wanted: int) -> tuple[Edit, ...]:
    """So many edits of a data set, drawn by the seed."""
    edits = load(name, data_folder(settings))
    _demand(wanted, len(edits), name)
    return tuple(random.Random(settings.seed).sample(edits, wanted))  # noqa: S311 - no secret


def _bundled(folder: ModelFolder, parties: int, per_party: int, seed: int) -> Dealt:
    _demand_atlas(folder)
    if parties in FOLDERS and seed == 0:
        own = party_edits(folder, parties, per_party)
        if all(len(each) == per_party for each in own):
            return own
    from collabedit.experiments.atlas.edits import Deal, deal
    from collabedit.experiments.atlas.world import build_world

    world = build_world()
    _demand(parties * per_party, len(world.subjects) // 2, "the bundled model's world")
    records = deal(world, Deal("pool", parties, per_party, seed))
    return tuple(tuple(parse_record(record) for record in own) for own in records)


def _demand_atlas(folder: ModelFolder) -> None:
    if folder.path != bundled_models().get("atlas"):
        raise UsageError(
            f"{folder.name}: brings no edits of its own", mend="give --records counterfact or zsre, and --data"
        )


def _demand(wanted: int, there: int, what: str) -> None:
    if wanted > there:
        raise UsageError(f"{what} has {there} edits to give, not {wanted}", mend="give fewer parties, or fewer edits")
