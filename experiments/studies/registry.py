"""The studies by name. Light: `collab experiment --help` reads this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from collabedit.common.errors import UsageError
from collabedit.experiments.studies.settings import (
    AblationBetaSettings,
    Figure1Settings,
    Figure3Settings,
    Figure6Settings,
    OverlapSettings,
    RetentionSettings,
    RoundsSettings,
    StudySettings,
    Table1Settings,
    Table4Settings,
    Table5Settings,
    Table6Settings,
)

if TYPE_CHECKING:
    from collabedit.experiments.studies.study import Study

HERE: Final = "collabedit.experiments.studies"


@dataclass(frozen=True)
class Registration:
    """A study's place. study: module:object; settings: its flags; line: its help, one sentence.

    runs: what `make experiments` runs for the results page, flags by folder name; none where a study is not on it.
    """

    study: str
    line: str
    settings: type[StudySettings] = StudySettings
    runs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


STUDIES: Final[Mapping[str, Registration]] = {
    "table1": Registration(
        f"{HERE}.table1:TABLE1",
        "Every method on records of CounterFact's kind and of zsRE's.",
        Table1Settings,
        runs={"table1": {}, "table1-live": {"sets": "mcf", "live": True}},
    ),
    "schedules": Registration(
        f"{HERE}.schedules:SCHEDULES",
        "The three schedules side by side: Score, distance, bytes and exchanges of a round.",
        runs={"schedules": {}},
    ),
    "figure1": Registration(
        f"{HERE}.figure1:FIGURE1",
        "The Score against the number of edits.",
        Figure1Settings,
        runs={"figure1": {}},
    ),
    "figure6": Registration(
        f"{HERE}.figure6:FIGURE6",
        "The Score against the number of parties: edits of each fixed, and their total fixed.",
        Figure6Settings,
        runs={"figure6": {}},
    ),
    "table6": Registration(
        f"{HERE}.table6:TABLE6",
        "Edits that contradict each other in one round: both parties' edits, and the others.",
        Table6Settings,
        runs={"table6": {}, "table6-zsre": {"sets": "zsre"}},
    ),
    "table4": Registration(
        f"{HERE}.table4:TABLE4",
        "Conflicts of one round before and after the winners re-submit, on the bundled world or the Easy data.",
        Table4Settings,
        runs={"table4": {}},
    ),
    "rounds": Registration(
        f"{HERE}.rounds:ROUNDS",
        "Rounds of fresh edits: what each method keeps of all of them.",
        RoundsSettings,
        runs={"rounds": {}},
    ),
    "figure3": Registration(
        f"{HERE}.figure3:FIGURE3",
        "The residual of edits that are made again and again, beside eq. 6.",
        Figure3Settings,
        runs={"figure3": {}},
    ),
    "table5": Registration(
        f"{HERE}.table5:TABLE5",
        "What many rounds leave of the first: immutable C against dynamic C.",
        Table5Settings,
        runs={"table5": {}},
    ),
    "ablation-beta": Registration(
        f"{HERE}.ablation_beta:ABLATION_BETA",
        "β0 and β1 of the dynamic C: the first round's edits, the last one's, all.",
        AblationBetaSettings,
        runs={"ablation-beta": {}},
    ),
    "overlap": Registration(
        f"{HERE}.overlap:OVERLAP",
        "Parties that hold the same edits: merged as often as they come, against once.",
        OverlapSettings,
        runs={"overlap": {}},
    ),
    "retention": Registration(
        f"{HERE}.retention:RETENTION",
        "How many of all earlier edits hold after each of many rounds: immutable C against dynamic C.",
        RetentionSettings,
        runs={"retention": {}},
    ),
}  # in the order of the results page


def study_of(name: str) -> Study[Any]:
    """The study of that name. Raises UsageError that lists those there are."""
    if name not in STUDIES:
        raise UsageError(f'no study "{name}"', mend=f"one of: {', '.join(STUDIES)}")
    module, _, attribute = STUDIES[name].study.partition(":")
    study: Study[Any] = getattr(import_module(module), attribute)
    return study
