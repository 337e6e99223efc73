"""A short, seeded part of `make chaos`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).parent / "run.py"


def killed(folder: Path, *sizes: str) -> list[dict]:
    """The kills of a short run, none of which has changed anything."""
    command = [sys.executable, RUN, "--seed", "3", *sizes, "--workers", "1", "--report", folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    kills = json.loads((folder / "report.json").read_text())["kills"]
    assert any(each["happened"] for each in kills)
    assert not [each for each in kills if each["wrong"]]
    return kills


def test_a_few_kills_change_nothing(tmp_path):
    """Real server processes, killed at transitions that a seed draws: rounds complete with the same bits."""
    sizes = ("--server", "3", "--meeting", "0", "--found", "1", "--bulk", "0", "--client", "0", "--enrol", "0")
    assert len(killed(tmp_path, *sizes)) == 4
    assert "| server |" in (tmp_path / "report.md").read_text()


def test_edits_that_meet_are_settled_as_without_a_kill(tmp_path):
    """A server killed while it settles what two parties claim, and what they report: the same verdicts and bits."""
    kills = killed(tmp_path, "--side", "claims", "--side", "reports", "--meeting", "1")
    assert {each["side"] for each in kills} == {"claims", "reports"}
