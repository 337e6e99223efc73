"""`collab demo` and `collab experiment shape` on the bundled model, and what is left of a demo that is interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from transformers import AutoModelForCausalLM

from collabedit.common.errors import ExitCode
from collabedit.common.model_folder import bundled_models
from collabedit.experiments.federation_processes import installed

NAIVE = ("task-arithmetic", "simple-average", "ties")
METHODS = ["unedited", "collabedit", "global-edit", *NAIVE]
KINDS = ("ES", "PS", "NS", "Score")
needs_atlas = pytest.mark.skipif("atlas" not in bundled_models(), reason="the bundled model has not been built")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The installed command, run to its end."""
    command = [installed("collab"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=580, check=False)


def check_shape(rows: list[dict]) -> None:
    """What the paper's tables show: collabedit equals global-edit, naive merges fall behind."""
    assert [row["method"] for row in rows] == METHODS
    by = {row["method"]: row for row in rows}
    assert by["unedited"]["distance"] is None
    assert by["collabedit"]["distance"] <= 1e-6
    for kind in KINDS:
        assert by["collabedit"][kind] == pytest.approx(by["global-edit"][kind], abs=1e-3)
    assert by["global-edit"]["Score"] > by["unedited"]["Score"]
    for method in NAIVE:
        assert by[method]["Score"] < by["collabedit"]["Score"]
        assert by[method]["distance"] > 0.05


@needs_atlas
@pytest.mark.slow
def test_demo_shows_what_the_paper_shows(tmp_path: Path) -> None:
    """One JSON object on standard output; the exported model loads and answers an edited fact."""
    ran = run("demo", "--json", "--keep", tmp_path / "demo")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    check_shape(found["rows"])
    assert found["distance_with_fresh_targets"] <= 1e-2
    AutoModelForCausalLM.from_pretrained(found["model"])
    assert found["answer"].startswith(found["question"])
    assert found["target"] in found["answer"][len(found["question"]) :]


@needs_atlas
@pytest.mark.slow
def test_ten_parties_have_the_shape_of_the_papers_tables() -> None:
    """The experiment's rows are ordered like the paper's."""
    ran = run("experiment", "shape", "--edits-per-party", 10, "--json")
    assert ran.returncode == 0, ran.stderr
    check_shape(json.loads(ran.stdout)["rows"])


@pytest.fixture
def playable(kit, tmp_path: Path) -> Path:
    """The tiny model with party edits, enough for a demo to begin."""
    folder = kit.make_folder(tmp_path / "tiny")
    deal = folder / "edits" / "three"
    deal.mkdir(parents=True)
    for party in (1, 2, 3):
        kit.write_lines(deal / f"party-{party}.jsonl", [kit.record(n, fact) for n, fact in enumerate(kit.facts)])
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_no_process(playable: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C or SIGTERM while server and clients run: all of them end, and so does the demo, with exit code 130."""
    command = [installed("collab"), "demo", "--model", playable, "--keep", tmp_path / "kept"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as demo:
        for line in demo.stderr:
            if line.startswith("party-3"):
                break
        children = [child.pid for child in psutil.Process(demo.pid).children()]
        assert len(children) == 4
        demo.send_signal(number)
        demo.stderr.read()
        assert demo.wait() == ExitCode.INTERRUPTED
    assert not any(map(psutil.pid_exists, children))


def test_a_model_without_party_edits_is_refused(collab, model_folder: Path) -> None:
    """The demo needs edits for three parties in the model's folder."""
    ran = collab("demo", "--model", model_folder)
    assert ran.code == ExitCode.USAGE, ran.err
    assert "3 parties" in ran.err


@needs_atlas
def test_sample_edits_are_edits(collab, tmp_path: Path) -> None:
    """Each party's lines are read back as edits, and no two parties edit the same subject."""
    from collabedit.common.edits import parse_lines

    subjects: set[str] = set()
    for party in (1, 2, 3):
        ran = collab("sample-edits", "--party", party)
        assert ran.code == 0, ran.err
        parsed = parse_lines(ran.out.splitlines())
        assert not parsed.problems
        mine = {edit.subject for edit in parsed.edits}
        assert len(mine) >= 8
        assert not mine & subjects
        subjects |= mine
    assert len(collab("sample-edits", "--party", 7, "--of", 10, "--count", 2).out.splitlines()) == 2
    assert collab("sample-edits", "--party", 7).code == ExitCode.USAGE
