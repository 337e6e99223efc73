"""The bundled edits: who holds which, for the demo, the experiments and whoever wants to try things."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from collabedit.common.edits import Edit, parse_lines
from collabedit.common.errors import UsageError
from collabedit.common.model_folder import ModelFolder

FOLDERS: Final = {3: "three", 10: "ten"}


def party_files(folder: ModelFolder, parties: int) -> tuple[Path, ...]:
    """The edit files of a bundled deal among 3 or 10 parties, in the parties' order. Raises UsageError."""
    if parties not in FOLDERS:
        raise UsageError(f"no edits for {parties} parties", mend=f"one of {', '.join(map(str, FOLDERS))}")
    files = tuple(sorted((folder.path / "edits" / FOLDERS[parties]).glob("party-*.jsonl")))
    if len(files) != parties:
        raise UsageError(
            f"{folder.name}: no edits for {parties} parties in the model's folder", mend="use the bundled model, atlas"
        )
    return files


def party_lines(file: Path, most: int | None = None) -> list[str]:
    """The lines of one party's file, the first `most` of them, each with its line's end."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines(keepends=True) if line.strip()]
    return lines[:most]


def party_edits(folder: ModelFolder, parties: int, most: int | None = None) -> tuple[tuple[Edit, ...], ...]:
    """Every party's edits, the first `most` of each."""
    return tuple(parse_lines(party_lines(file, most)).edits for file in party_files(folder, parties))
