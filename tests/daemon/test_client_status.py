"""`collab-client status`: what became of every edit, read beside a client at work."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from collabedit.client import ledger_view, schema
from collabedit.client.edit_life import EditStatus, VerdictKind, VerdictNote
from collabedit.client.main import command
from collabedit.client.report import counts, edit_row, result, write_report
from collabedit.client.snapshot import Membership, Outcome, Phase
from collabedit.client.state import ClientState
from collabedit.common.edits import parse_lines
from collabedit.common.errors import CollabEditError, ExitCode, UsageError

LINE = '{"prompt": "{} speaks", "subject": "%s", "target_new": "French", "id": "%s"}'
SCORES = {"took": True, "ES": 1.0, "PS": 0.5, "NS": 1.0, "correct": 1.0, "probability": 0.9}


@pytest.fixture
def folder(tmp_path: Path):
    """A client's folder, its ledger held open as by a client at work: verified, failed, withdrawn, waiting."""
    with ClientState(tmp_path / "ledger.sqlite") as state:
        state.bind("sha256:aa")
        names = ("Anna", "Boris", "Carla")
        state.take_in(parse_lines([LINE % (each, each.lower()) for each in names]))
        state.enter(1)
        carla = state.ledger()[2].key
        state.heed([VerdictNote(1, 1, carla, VerdictKind.YIELD, "first-come")])
        state.settle(Outcome(1, Phase.PUBLISHED, Membership.CONTRIBUTED, 1))
        anna, boris = (each.key for each in state.unscored())
        state.record_scores({anna: SCORES, boris: {**SCORES, "took": False, "ES": 0.0}}, {1: {"ES": 0.5}})
        state.take_in(parse_lines([LINE % (each, each.lower()) for each in (*names, "Dora")]))
        state.record_retention(1, {anna: SCORES}, {}, resubmit=False)
        yield tmp_path


def run(*arguments: object) -> str:
    """What `collab-client` prints on standard output; it must end well."""
    ran = CliRunner().invoke(command, [str(each) for each in arguments], catch_exceptions=False)
    assert ran.exit_code == 0
    return ran.stdout


def test_every_edit_is_listed_with_its_state_and_reason(folder: Path) -> None:
    """The table has a row for each edit: state, round, version, scores and reason; the last line counts the states."""
    said = run("status", "--state", folder)
    rows = {line.split()[0]: line for line in said.splitlines() if line}
    assert "verified" in rows["anna"]
    assert "0.5000" in rows["anna"]
    assert "did not take" in rows["boris"]
    assert "round 1: another party's edit" in rows["carla"]
    assert "pending" in rows["dora"]
    last = "4 edits: 1 pending, 1 verified, 1 failed, 1 withdrawn; 1 of 1 held on version 1"
    assert said.splitlines()[-1] == last


def test_json_holds_each_edits_whole_life(folder: Path) -> None:
    """One object: counts by state, and every edit's events from the first; only what is asked for with --only."""
    told = json.loads(run("status", "--state", folder, "--json"))
    assert (told["federation"], told["round"], told["counts"]["withdrawn"]) == ("sha256:aa", None, 1)
    assert set(told["counts"]) == {each.value for each in EditStatus}
    lives = {each["id"]: [event["status"] for event in each["life"]] for each in told["edits"]}
    assert lives["carla"] == ["pending", "entered", "withdrawn"]
    assert lives["anna"] == ["pending", "entered", "merged", "verified"]
    assert all(event["at"].endswith("Z") for each in told["edits"] for event in each["life"])
    assert told["rounds"] == [
        {"round": 1, "outcome": "merged", "version": 1, "reason": "", "edits": 2, "scores": {"ES": 0.5}}
    ]
    assert told["retention"] == [{"version": 1, "tested": 1, "held": 1}]
    some = json.loads(run("status", "--state", folder, "--json", "--only", "failed", "--only", "pending"))
    assert [each["id"] for each in some["edits"]] == ["boris", "dora"]
    assert some["counts"] == told["counts"]


def in_every_state(state: ClientState) -> None:
    """Brings a ledger to where it has one edit in each state, whose id is the state's name."""

    def take_in(*ids: str) -> dict[str, str]:
        state.take_in(parse_lines([LINE % (each, each) for each in ids]))
        return {each.edit.id: each.key for each in state.ledger()}

    def merge(round_: int) -> None:
        state.enter(round_)
        state.settle(Outcome(round_, Phase.PUBLISHED, Membership.CONTRIBUTED, round_))

    old = ("verified", "failed", "forgotten", "re-submitted", "in-conflict", "withdrawn")
    key = take_in(*old)
    merge(1)
    lost = {**SCORES, "took": False}
    state.record_scores({key[each]: lost if each in ("failed", "re-submitted") else SCORES for each in old}, {})
    take_in(*old, "merged")
    merge(2)
    state.record_retention(2, {key["verified"]: SCORES}, {key["forgotten"]: lost}, resubmit=False)
    take_in(*old, "merged", "entered")
    state.enter(3)
    kinds = {"re-submitted": VerdictKind.KEEP, "in-conflict": VerdictKind.OVERWRITTEN, "withdrawn": VerdictKind.YIELD}
    state.heed([VerdictNote(n, 3, key[each], kinds[each], "first-come") for n, each in enumerate(kinds, start=1)])
    key = take_in(*old, "merged", "entered", "pending", "already-known")
    state.screened(2, {key["already-known"]: "version 2 holds it already"}, {})


def test_every_state_is_seen_in_status_and_in_the_report(tmp_path: Path) -> None:
    """Each state that an edit can be in is told by the table, by --json and by the report, with the reason for it."""
    with ClientState(tmp_path / "ledger.sqlite") as state:
        in_every_state(state)
        report = result("sha256:aa", state.ledger(), state.rounds())
    told = json.loads(run("status", "--state", tmp_path, "--json"))
    table = run("status", "--state", tmp_path)
    without_reason = {"pending", "entered", "merged", "verified"}
    for name in (each.value for each in EditStatus):
        (row,) = (each for each in told["edits"] if each["id"] == name)
        (reported,) = (each for each in report["edits"] if each["id"] == name)
        assert row["status"] == row["life"][-1]["status"] == reported["status"] == name
        assert bool(row["reason"]) == bool(reported["reason"]) == (name not in without_reason)
        assert told["counts"][name] == report["counts"][name] == 1
        assert f" {name}" in next(line for line in table.splitlines() if line.startswith(f"{name} "))
        assert [
            each["id"] for each in json.loads(run("status", "--state", tmp_path, "--json", "--only", name))["edits"]
        ] == [name]


def test_status_and_report_say_the_same_of_an_edit(folder: Path) -> None:
    """Whoever reads one of the two objects can read the other: the same keys with the same values."""
    told = ledger_view.ledger_object(folder / "ledger.sqlite", lives=False)
    with ClientState(folder / "ledger.sqlite") as state:
        entries = state.ledger()
        rounds = [vars(each) for each in state.rounds()]
    assert told["edits"] == [edit_row(each) for each in entries]
    assert (told["counts"], told["rounds"]) == (counts(entries), rounds)


def test_status_reads_while_a_client_writes(folder: Path) -> None:
    """In the middle of another process's transaction the last complete state is told, and nobody waits."""
    with ClientState(folder / "ledger.sqlite") as writer, writer._transaction() as connection:
        connection.execute(schema.edits.update().values(status="pending"))
        assert json.loads(run("status", "--state", folder, "--json"))["counts"]["verified"] == 1


def test_status_changes_nothing(folder: Path) -> None:
    """The ledger is opened to be read alone: nothing can be written by way of it."""
    with ledger_view._reading(folder / "ledger.sqlite") as reader, pytest.raises(sqlite3.Error, match="readonly"):
        reader.execute("UPDATE edits SET status = 'pending'")


def refused(*arguments: object) -> CollabEditError:
    """The error that a command ends with."""
    with pytest.raises(CollabEditError) as error:
        CliRunner().invoke(command, [str(each) for each in arguments], catch_exceptions=False, standalone_mode=False)
    return error.value


def test_a_folder_without_a_ledger_is_named(tmp_path: Path) -> None:
    """Where no client ran there is nothing to tell, and none is made."""
    error = refused("status", "--state", tmp_path)
    assert (error.exit_code, "no ledger" in error.what) == (ExitCode.STATE, True)
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_of_another_release_is_named(tmp_path: Path) -> None:
    """A ledger that has not been brought up to date is left as it is, and the mend is told."""
    schema.open_database(tmp_path / "ledger.sqlite", schema.MIGRATIONS[:1]).dispose()
    assert "another release" in refused("status", "--state", tmp_path).what


def test_a_flag_before_the_command_is_refused(folder: Path) -> None:
    """A flag that would have no effect is an error that says where to write it."""
    error = refused("--state", folder, "status")
    assert isinstance(error, UsageError)
    assert "--state stands before status" in error.what


def test_status_needs_no_heavy_library(folder: Path) -> None:
    """The command loads neither torch nor transformers nor grpc, which take seconds, nor sqlalchemy."""
    spy = (
        "import sys\nfrom collabedit.client.main import main\n"
        f"sys.argv = ['collab-client', 'status', '--state', {str(folder)!r}]\nmain()\n"
        "assert not {'torch', 'transformers', 'grpc', 'sqlalchemy', 'alembic'} & set(sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", spy], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "anna" in ran.stdout


def test_the_report_counts_the_states_and_names_the_padding(folder: Path, tmp_path: Path) -> None:
    """The result has the counts, what was merged, each edit, and the public facts that filled the batch up."""
    with ClientState(folder / "ledger.sqlite") as state:
        entries, rounds = state.ledger(), state.rounds()
    pads = parse_lines([LINE % ("Public", "public")]).edits
    told = result("sha256:aa", entries, rounds, padding=pads)
    assert (told["round"], told["version"], told["merged"], told["scores"]) == (1, 1, 2, {"ES": 0.5})
    assert told["counts"] == counts(entries)
    assert told["padding"] == [{"id": "public", "subject": "Public", "target_new": "French"}]
    write_report(tmp_path / "report.json", told)
    assert json.loads((tmp_path / "report.json").read_text()) == told
    write_report(None, told)
