"""The frame of the studies: resumable runs, refused settings, the registry, tables and the page."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from collabedit.common.errors import BadFileError, MismatchError, StateError, UsageError
from collabedit.experiments.studies.cells import FILE, CellFile
from collabedit.experiments.studies.page import Ran, command, page, write_page
from collabedit.experiments.studies.registry import STUDIES, Registration, study_of
from collabedit.experiments.studies.runner import Results, run
from collabedit.experiments.studies.settings import StudySettings
from collabedit.experiments.studies.tables import across, table_of

SCRIPT = Path(__file__).with_name("toy_study.py")
SPEC = spec_from_file_location("toy_study", SCRIPT)
assert SPEC and SPEC.loader
toy = module_from_spec(SPEC)
SPEC.loader.exec_module(toy)
FILES = ("results.json", "table.md", "plot.png")
SIX = StudySettings(parties=6)


def test_a_run_killed_in_the_middle_ends_as_one_that_was_not(tmp_path: Path) -> None:
    """SIGKILL in the fourth cell; the second run computes what is left, and every file is the same to the byte."""
    ran = subprocess.run([sys.executable, SCRIPT, tmp_path / "killed", "3"], check=False, timeout=120)
    assert ran.returncode == -signal.SIGKILL
    assert len((tmp_path / "killed" / FILE).read_text().splitlines()) == 3
    again, listener = toy.Squares(), toy.Silent()
    run(again, SIX, listener, out=tmp_path / "killed")
    assert again.computed == ["3", "4", "5"]
    assert listener.said[0] == "squares: 3 of 6 cells are done already"
    assert listener.ticks[-1] == ("squares", 6, 6)
    run(toy.Squares(), SIX, toy.Silent(), out=tmp_path / "whole")
    for name in FILES:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_finished_run_computes_nothing_again(tmp_path: Path) -> None:
    """The same settings a second time: no cell runs, and the study does not even begin."""
    run(toy.Squares(), SIX, toy.Silent(), out=tmp_path)
    again = toy.Squares()
    assert run(again, SIX, toy.Silent(), out=tmp_path).rows[5]["Score"] == 25 / 7
    assert again.computed == []


def test_a_line_that_a_kill_cut_short_is_run_again(tmp_path: Path) -> None:
    """Half of a line at the file's end counts as not there."""
    run(toy.Squares(), SIX, toy.Silent(), out=tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[:-9])
    again = toy.Squares()
    run(again, SIX, toy.Silent(), out=tmp_path)
    assert again.computed == ["5"]
    assert len((tmp_path / FILE).read_bytes().splitlines()) == 6


def test_cells_of_other_settings_are_refused(tmp_path: Path) -> None:
    """By name, before anything runs; what does not matter to a result may differ."""
    run(toy.Squares(), SIX, toy.Silent(), out=tmp_path)
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(MismatchError, match="other settings"):
        run(toy.Squares(), SIX.model_copy(update={"seed": 1}), toy.Silent(), out=tmp_path)
    assert (tmp_path / FILE).read_bytes() == before
    other = toy.Squares()
    run(other, SIX.model_copy(update={"threads": 2}), toy.Silent(), out=tmp_path)
    assert other.computed == []


def test_without_a_folder_other_settings_go_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default folder is named by the settings' fingerprint."""
    monkeypatch.chdir(tmp_path)
    one = run(toy.Squares(), SIX, toy.Silent(), out=None)
    other = run(toy.Squares(), StudySettings(parties=2), toy.Silent(), out=None)
    assert one.folder != other.folder
    assert {each.name[:8] for each in (tmp_path / "runs").iterdir()} == {"squares-"}


def test_a_folder_is_one_process_at_a_time(tmp_path: Path) -> None:
    """A second opening is refused while the first holds the folder; a file that is none is named with its line."""
    with CellFile.opened(tmp_path, "a"), pytest.raises(StateError), CellFile.opened(tmp_path, "a"):
        pass
    (tmp_path / FILE).write_text('{"key": 1}\n')
    with pytest.raises(BadFileError, match=f"{FILE}:1"), CellFile.opened(tmp_path, "a"):
        pass


@pytest.mark.parametrize("name", STUDIES)
def test_every_registered_study_is_whole(name: str) -> None:
    """It imports, says who it is, and each of its runs for the page is of its settings and has cells."""
    study, registered = study_of(name), STUDIES[name]
    assert study.name == name
    assert study.title
    assert study.text
    assert registered.line.endswith(".")
    for flags in ({}, *registered.runs.values()):
        keys = list(study.keys(registered.settings.model_validate(flags)))
        assert keys
        assert len(set(keys)) == len(keys)


def test_an_unknown_study_is_named() -> None:
    """With those there are."""
    with pytest.raises(UsageError, match="tabel1") as caught:
        study_of("tabel1")
    assert "table1" in caught.value.mend


def test_tables_show_figures_with_their_intervals() -> None:
    """Three digits, small ones in scientific form, None as a dash, counts with thousands; an upright bar is escaped."""
    rows = [
        {"method": "a|b", "Score": 0.94003, "distance": 9.7e-8, "intervals": {"Score": [0.9, 0.9711]}},
        {"method": "c", "Score": None, "distance": 0.0, "bytes": 231168},
    ]
    assert table_of(rows, title="T").markdown().splitlines() == [
        "**T**",
        "",
        "| method | Score | distance | bytes |",
        "| --- | ---: | ---: | ---: |",
        "| a\\|b | 0.940 [0.900, 0.971] | 9.7e-08 | – |",
        "| c | – | 0.000 | 231,168 |",
    ]


def test_a_table_across_methods_has_a_line_for_each_value() -> None:
    """A method that lacks a value has a dash there."""
    rows = [{"method": "x", "n": 1, "Score": 0.5}, {"method": "x", "n": 2, "Score": 0.25}, {"method": "y", "n": 2}]
    table = across(rows, "n")
    assert table.columns == ("n", "x", "y")
    assert table.lines == (("1", "0.500", "–"), ("2", "0.250", "–"))


def test_the_page_has_a_section_a_study_and_the_real_scale_run() -> None:
    """Each with its text, command, table, plot; the section of the real-scale run as it was written."""
    rows = [{"method": "collabedit", "Score": 0.5}]
    results = Results("table1", SIX, rows, [table_of(rows)], ("A note.",), Path("runs/x"), 3.2)
    said = page({"table1": [Ran("table1-live", {"live": True, "sets": "mcf"}, results)]}, Path("runs"), "## Real scale")
    wanted = ["# Results", study_of("table1").text[:40], "| collabedit | 0.500 |", "A note.", "table1-live.png", "3 s."]
    places = [said.index(each) for each in wanted]
    assert places == sorted(places)
    assert said.endswith("## Real scale\n")
    assert command("table1", "t", {"live": True, "sets": "mcf"}, Path("runs")) == (
        "collab experiment table1 --live --sets mcf --out runs/t --targets runs/targets"
    )


def test_the_page_is_written_and_runs_anew_what_is_of_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run goes on where it is of the page's settings; else, and where asked, it begins anew; z vectors stay."""
    squares = toy.Squares()
    monkeypatch.setattr("collabedit.experiments.studies.page.study_of", lambda name: squares)
    runs, docs = tmp_path / "runs", tmp_path / "docs"
    docs.mkdir()
    (docs / "real-scale.md").write_text("## Real scale\n")

    def computed(parties: int, *, fresh: bool = False) -> int:
        squares.computed.clear()
        registered = {"squares": Registration("toy:SQUARES", "Squares.", runs={"squares": {"parties": parties}})}
        monkeypatch.setattr("collabedit.experiments.studies.page.STUDIES", registered)
        write_page(runs, docs, toy.Silent(), fresh=fresh)
        return len(squares.computed)

    assert [computed(4), computed(4), computed(5), computed(5, fresh=True)] == [4, 0, 5, 5]
    said = (docs / "results.md").read_text()
    assert said.startswith("# Results")
    assert said.endswith("## Real scale\n")
    picture = re.search(r"!\[Squares\]\((.*)\)", said)
    assert picture
    assert (docs / picture[1]).read_bytes() == (runs / "squares" / "plot.png").read_bytes()


def test_results_hold_the_rows_and_the_settings(tmp_path: Path) -> None:
    """results.json has what a reader needs and no times; --json adds the folder and the seconds."""
    found = run(toy.Squares(), SIX, toy.Silent(), out=tmp_path)
    said = json.loads((tmp_path / "results.json").read_text())
    assert said["rows"] == json.loads(json.dumps(found.rows))
    assert said["settings"]["parties"] == 6
    assert not re.search("seconds|threads", json.dumps(said))
    assert {"rows", "seconds", "out"} <= set(found.as_json())


def test_what_a_run_took_of_the_processor_is_kept(tmp_path: Path) -> None:
    """Beside the clock's seconds, over all runs; unknown where a cell of an earlier release lacks it."""
    first = run(toy.Squares(), SIX, toy.Silent(), out=tmp_path)
    again = run(toy.Squares(), SIX, toy.Silent(), out=tmp_path)
    assert first.processor is not None
    assert first.processor >= 0
    assert (again.processor, again.seconds) == (first.processor, first.seconds)
    assert "s of the processor." in page({"table1": [Ran("squares", {}, again)]}, tmp_path)
    cells = tmp_path / FILE
    lines = [json.loads(line) for line in cells.read_text().splitlines()]
    lines[0].pop("processor")
    cells.write_text("".join(json.dumps(line) + "\n" for line in lines))
    earlier = run(toy.Squares(), SIX, toy.Silent(), out=tmp_path)
    assert (earlier.processor, earlier.seconds) == (None, first.seconds)
