"""A short part of `make chaos`: a few kills at moments that matter, by name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).parent / "run.py"
RECORD = "commit/SqlStore.record"
POINTS = (
    "found:commit/SqlStore.found:1:after",
    f"claims:{RECORD}/Settle:1:before,{RECORD}/Settle:1:after,chunk/Writer.append:2:after,factor/Cholesky.of:2:after",
    f"reports:{RECORD}/Judge:1:before,{RECORD}/Judge:1:after",
)


def test_a_few_kills_change_nothing(tmp_path):
    """A server killed as it founds a federation; killed in one round as it settles what two parties claim, takes an
    upload and merges; and as it compares what they report: the same verdicts and bits as without a kill.
    """
    only = [part for each in POINTS for part in ("--only", each)]
    command = [sys.executable, RUN, *only, "--workers", "1", "--report", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    kills = json.loads((tmp_path / "report.json").read_text())["kills"]
    assert {each["point"] for each in kills if each["happened"] and not each["wrong"]} == set(POINTS)
    assert "| found | commit/SqlStore.found | after | 1 | 1 |" in (tmp_path / "report.md").read_text()
