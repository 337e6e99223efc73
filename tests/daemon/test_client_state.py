"""The client's durable state: what it promises, also when the process is killed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from collabedit.client import schema
from collabedit.client.snapshot import Membership, Outcome, Phase
from collabedit.client.state import ClientState, EditStatus
from collabedit.client.state_folder import StateFolder, prune
from collabedit.common.edits import Parsed, parse_lines
from collabedit.common.errors import ExitCode, StateError


def parsed(*subjects: str, target: str = "French") -> Parsed:
    """An edits file with one line for each subject."""
    lines = [f'{{"prompt": "{{}} speaks", "subject": "{each}", "target_new": "{target}"}}' for each in subjects]
    return parse_lines(lines)


@pytest.fixture
def state(tmp_path: Path):
    """A new client's state."""
    with ClientState(tmp_path / "ledger.sqlite") as opened:
        yield opened


def subjects(entries) -> list[str]:
    """What tells the entries apart here."""
    return [each.edit.subject for each in entries]


def published(round_: int, version: int) -> Outcome:
    """A round that ended well."""
    return Outcome(round_, Phase.PUBLISHED, Membership.CONTRIBUTED, version)


def test_new_lines_wait_and_vanished_lines_are_withdrawn(state: ClientState) -> None:
    """The ledger follows the file: new lines wait, vanished ones are withdrawn, and come back when their line does."""
    state.take_in(parsed("Anna", "Boris"))
    state.take_in(parsed("Boris", "Carla"))
    assert subjects(state.waiting()) == ["Boris", "Carla"]
    assert [each.status for each in state.ledger()] == [EditStatus.WITHDRAWN, EditStatus.PENDING, EditStatus.PENDING]
    state.take_in(parsed("Anna"))
    assert subjects(state.waiting()) == ["Anna"]


def test_a_changed_line_is_a_new_edit(state: ClientState) -> None:
    """A line that says something else is another edit; the one it said before is withdrawn if it was not merged."""
    state.take_in(parsed("Anna"))
    state.take_in(parsed("Anna", target="Dutch"))
    assert [each.edit.target_new for each in state.waiting()] == ["Dutch"]


def test_the_same_said_twice_counts_once(state: ClientState) -> None:
    """Lines that say the same are one edit, at the first line's number."""
    state.take_in(parsed("Anna", "Anna"))
    assert [each.line for each in state.waiting()] == [1]


def test_a_rounds_batch_is_fixed_when_it_is_entered(state: ClientState) -> None:
    """Lines appended or removed during a round change nothing in it: what is new waits for the next."""
    state.take_in(parsed("Anna", "Boris"))
    state.enter(3)
    state.take_in(parsed("Boris", "Carla"))
    assert subjects(state.enter(3)) == subjects(state.batch()) == ["Anna", "Boris"]
    assert subjects(state.waiting()) == ["Carla"]
    assert state.round == 3


def test_a_published_round_merges_its_edits(state: ClientState) -> None:
    """A round that was published with us marks its edits merged with the version, until scored as unscored."""
    state.take_in(parsed("Anna"))
    state.enter(3)
    state.record_contribution(3, 0, 0, "digest")
    state.settle(published(3, 3))
    (entry,) = state.unscored()
    assert (entry.status, entry.round, entry.version) == (EditStatus.MERGED, 3, 3)
    assert state.round is None
    assert state.contributions(3, 0) == {}
    state.record_scores({entry.key: {"ES": 1.0}}, {3: {"ES": 1.0}})
    assert state.unscored() == []
    assert state.failed() != []
    assert state.rounds()[0].scores == {"ES": 1.0}
    state.take_in(parsed("Anna"))
    assert state.waiting() == []


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(3, Phase.NO_QUORUM, Membership.OUT, 0, "no quorum: 1 of 2"),
        Outcome(3, Phase.PUBLISHED, Membership.OUT, 3, "late"),
        Outcome(3, Phase.ABORTED, Membership.OUT, 0, "an admin said so"),
    ],
)
def test_edits_of_a_round_that_left_them_out_wait_again(state: ClientState, outcome: Outcome) -> None:
    """Edits that were not merged wait for the next round, with the reason."""
    state.take_in(parsed("Anna"))
    state.enter(3)
    state.settle(outcome)
    (entry,) = state.waiting()
    assert entry.reason == outcome.reason
    assert state.rounds()[0].version is None


def test_contributions_are_kept_by_attempt_and_layer(state: ClientState) -> None:
    """Each layer of each attempt has one contribution; what another attempt holds does not count."""
    state.record_contribution(3, 0, 0, "first layer")
    state.record_contribution(3, 0, 1, "second layer")
    state.record_contribution(3, 0, 1, "second layer")
    state.record_contribution(3, 1, 0, "next attempt")
    assert state.contributions(3, 0) == {0: "first layer", 1: "second layer"}
    assert state.contributions(3, 1) == {0: "next attempt"}


def test_a_round_that_did_not_take_us_in_leaves_no_trace(state: ClientState) -> None:
    """Edits of a round that was closed before we entered wait as before, and no outcome is noted."""
    state.take_in(parsed("Anna"))
    state.enter(3)
    state.release()
    (entry,) = state.waiting()
    assert (entry.round, state.round, state.rounds()) == (None, None, [])


def test_a_folder_belongs_to_one_federation(state: ClientState) -> None:
    """A state folder is bound at the first joining and refuses another federation by name, with exit code 10."""
    state.bind("sha256:aa")
    state.bind("sha256:aa")
    with pytest.raises(StateError, match=r"belongs to the federation sha256:aa, the server to sha256:bb") as refused:
        state.bind("sha256:bb")
    assert refused.value.exit_code == ExitCode.STATE


def test_one_client_at_a_time(tmp_path: Path) -> None:
    """A second client on the same folder is refused and told which process holds it."""
    folder = StateFolder(tmp_path / "state")
    with folder.locked(), pytest.raises(StateError, match=f"process {os.getpid()}"), folder.locked():
        pass
    with folder.locked():
        pass


def test_a_failing_migration_leaves_nothing(tmp_path: Path) -> None:
    """A migration that fails half-way is rolled back whole, its first statements and the version included."""
    file = tmp_path / "ledger.sqlite"
    schema.open_database(file).dispose()
    bad = (*schema.MIGRATIONS, ("CREATE TABLE half (a TEXT)", "CREATE NONSENSE"))
    with pytest.raises(StateError):
        schema.open_database(file, bad)
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(schema.MIGRATIONS),)
        assert connection.execute("SELECT name FROM sqlite_master WHERE name = 'half'").fetchall() == []
    with ClientState(file) as opened:
        assert opened.ledger() == []


def test_a_later_releases_database_is_refused(tmp_path: Path) -> None:
    """A database of a later version is refused, not guessed at."""
    file = tmp_path / "ledger.sqlite"
    schema.open_database(file).dispose()
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StateError, match="later collabedit"):
        ClientState(file)


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    """A file that is no database is named, not overwritten."""
    file = tmp_path / "ledger.sqlite"
    file.write_text("something else entirely, long enough to be looked at" * 40)
    with pytest.raises(StateError, match=r"ledger\.sqlite"):
        ClientState(file)


def test_the_tables_are_those_of_the_migrations(tmp_path: Path) -> None:
    """The tables that queries are written against have the columns that the migrations make."""
    engine = schema.open_database(tmp_path / "ledger.sqlite")
    import sqlalchemy as sa

    found = sa.inspect(engine)
    for table in schema.metadata.tables.values():
        assert [each["name"] for each in found.get_columns(table.name)] == list(table.columns.keys())
    engine.dispose()


def test_prune_keeps_what_is_needed(tmp_path: Path) -> None:
    """Content-addressed files go when nothing needs them; a file of another kind is not ours to remove."""
    needed, done = "a" * 64, "b" * 64
    for name in (needed, done, f".{done}.part", "README.md"):
        (tmp_path / name).write_text(name)
    prune(tmp_path, {needed})
    assert {each.name for each in tmp_path.iterdir()} == {needed, "README.md"}


WRITER = """
import sys
from pathlib import Path
from collabedit.client.snapshot import Membership, Outcome, Phase
from collabedit.client.state import ClientState
from collabedit.common.edits import parse_lines
line = '{"prompt": "{} speaks", "subject": "Person %d", "target_new": "French"}'
with ClientState(Path(sys.argv[1])) as state:
    for number in range(1, 10_000):
        state.take_in(parse_lines([line % each for each in range(number)]))
        state.enter(number)
        state.record_contribution(number, 0, 0, f"digest-{number}")
        state.settle(Outcome(number, Phase.PUBLISHED, Membership.CONTRIBUTED, number))
        print(number, flush=True)
"""


def test_a_kill_between_any_writes_loses_nothing_and_leaves_no_half(tmp_path: Path) -> None:
    """SIGKILL at an arbitrary instant: what was reported done is there, and the state is one that a run passes."""
    file = tmp_path / "ledger.sqlite"
    for seen in (1, 3, 7):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(file)], stdout=subprocess.PIPE, text=True)
        assert child.stdout
        done = 0
        for line in child.stdout:
            done = int(line)
            if done >= seen:
                break
        child.send_signal(signal.SIGKILL)
        rest = child.communicate()[0].split()
        done = int(rest[-1]) if rest else done
        with ClientState(file) as state:
            ledger, rounds = state.ledger(), [each.round for each in state.rounds()]
            assert set(range(1, done + 1)) <= set(rounds)
            merged = [each for each in ledger if each.status is EditStatus.MERGED]
            assert len(merged) >= done
            entered = [each for each in ledger if each.status is EditStatus.ENTERED]
            assert not entered or state.round is not None
            if state.round is None:
                assert state.contributions(done + 1, 0) == {}
        file.unlink()


def test_the_ledger_is_for_its_owner_alone(tmp_path: Path) -> None:
    """It holds every edit in clear: nobody else on the host reads it, whatever the folder's rights."""
    tmp_path.chmod(0o755)
    with ClientState(StateFolder(tmp_path).ledger) as state:
        state.take_in(parsed("Anna"))
        rights = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.glob("ledger.sqlite*")}
    assert set(rights.values()) == {0o600}, rights
