"""A short, seeded part of `make chaos`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).parent / "run.py"


def test_a_few_kills_change_nothing(tmp_path):
    """Real server processes, killed at transitions that a seed draws: rounds complete with the same bits."""
    sizes = ("--server", "3", "--meeting", "0", "--found", "1", "--bulk", "0", "--client", "0", "--enrol", "0")
    command = [sys.executable, RUN, "--seed", "3", *sizes, "--workers", "1", "--report", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    kills = json.loads((tmp_path / "report.json").read_text())["kills"]
    assert len(kills) == 4
    assert any(each["happened"] for each in kills)
    assert not [each for each in kills if each["wrong"]]
    assert "| server |" in (tmp_path / "report.md").read_text()
