"""From the edits file to the ledger: nothing enters a round while a line is bad, unless bad lines are to be skipped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from collabedit.client.contradictions import without_contradictions
from collabedit.client.edit_file import demand_clean, duplicate_lines, problem_lines, read_edits
from collabedit.client.state import ClientState
from collabedit.common.edits import Edit, Parsed, Problem
from collabedit.common.errors import BadEditsError

Check = Callable[[Edit], None]


class Intake:
    """Reads the file whenever it has changed and brings the ledger in line with it.

    check: raises BadEditsError for an edit that the model cannot take (too long, its subject in no token). Of two lines
    that contradict each other the later is bad, unless the earlier one's edit is done with; where bad lines are skipped
    it is so in any case, or the next start would merge what this one has skipped.
    """

    def __init__(
        self, file: Path, state: ClientState, *, check: Check, skip_invalid: bool, say: Callable[[str], None]
    ) -> None:
        self._file = file
        self._state = state
        self._check = check
        self._skip_invalid = skip_invalid
        self._say = say
        self._stamp: tuple[int, ...] | None = None
        self._checked: dict[str, str] = {}
        self.blocked = False

    def start(self) -> list[str]:
        """Takes the file in and returns its edits' keys. Raises BadEditsError that names every line that is bad."""
        self._stamp = self._look()
        parsed = self._examined(read_edits(self._file))
        if not self._skip_invalid:
            demand_clean(self._file, parsed)
        self._take(parsed)
        return [edit.key for edit in parsed.edits]

    def refresh(self) -> None:
        """Takes the file in again if it has changed; one that is bad or gone is told, and blocks what waits."""
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            parsed = self._examined(read_edits(self._file))
            if not self._skip_invalid:
                demand_clean(self._file, parsed)
        except BadEditsError as error:
            self.blocked = True
            self._say(error.diagnostics())
            return
        self.blocked = False
        self._take(parsed)

    def _look(self) -> tuple[int, ...] | None:
        try:
            seen = self._file.stat()
        except OSError:
            return None
        return seen.st_ino, seen.st_size, seen.st_mtime_ns

    def _take(self, parsed: Parsed) -> None:
        for line in (*problem_lines(self._file, parsed), *duplicate_lines(self._file, parsed)):
            self._say(line)
        self._state.take_in(parsed)

    def _examined(self, parsed: Parsed) -> Parsed:
        """The same with the edits that the model cannot take among the problems."""
        reasons = [self._reason(edit) for edit in parsed.edits]
        problems = [Problem(line, why) for line, why in zip(parsed.lines, reasons, strict=True) if why]
        good = [index for index, why in enumerate(reasons) if not why]
        fit = replace(
            parsed,
            edits=tuple(parsed.edits[index] for index in good),
            lines=tuple(parsed.lines[index] for index in good),
            problems=tuple(sorted((*parsed.problems, *problems), key=lambda each: each.line)),
        )
        return consistent(fit, self._state, skip_invalid=self._skip_invalid)

    def _reason(self, edit: Edit) -> str:
        if edit.key not in self._checked:
            try:
                self._check(edit)
                self._checked[edit.key] = ""
            except BadEditsError as error:
                self._checked[edit.key] = error.what
        return self._checked[edit.key]


def consistent(parsed: Parsed, state: ClientState, *, skip_invalid: bool) -> Parsed:
    """The same with lines among the problems that contradict an earlier one; see `Intake`."""
    return without_contradictions(parsed, () if skip_invalid else state.done())
