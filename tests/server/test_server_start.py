"""Starting and stopping the server: what it says, what it refuses, and what it leaves alone."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog
from click.testing import CliRunner

from collabedit.server.claims import Rule
from collabedit.server.config import ServerConfig
from collabedit.server.main import main
from collabedit.server.main import server as command
from collabedit.server.process import _rule
from collabedit.server.store import Client


@pytest.fixture
def refused(monkeypatch, capsys):
    """Runs `collab-server` with flags in this process, up to its refusal: exit code and what is told."""

    def run(*flags: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["collab-server", *flags])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr().err
        assert "Traceback" not in told
        return ended.value.code, told

    yield run
    structlog.reset_defaults()


@pytest.mark.wheel
def test_help_shows_examples_and_every_setting():
    """`--help` names each setting with its default."""
    told = CliRunner().invoke(command, ["--help"])
    assert told.exit_code == 0
    for text in ("Examples:", "--quorum", "--schedule", "--entry-window", "[default:"):
        assert text in told.output


def test_help_imports_nothing_heavy():
    """What only a running server needs is not imported for `--help`, nor torch for a server that waits."""
    light = "import sys, collabedit.server.main; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", light], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "sqlalchemy", "alembic", "grpc", "numpy"} & set(told)
    idle = "import sys, collabedit.server.process, collabedit.server.federation; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", idle], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers"} & set(told)


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--quorum", "0"], 2, "--quorum"),
        (["--entry-window", "soon"], 2, "--entry-window"),
        (["--listen", "here"], 2, "--listen here: not host:port"),
        (["--insecure", "--listen", "0.0.0.0:1"], 2, "plaintext stays on this host"),
        (["--config", "/nowhere.toml"], 2, "/nowhere.toml"),
        (["--method", "mean"], 2, 'no merge method "mean": one of collabedit, '),
        (["--model", "no-such-model"], 4, 'no model "no-such-model"'),
        (["--state", "/dev/null/state"], 10, "/dev/null/state"),
        (["--database", "nosuch://here"], 2, "--database"),
        (["--check"], 7, "no server is running on this state"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(refused, flags, code, said, tmp_path):
    """The exit code tells the kind, the line the thing and the mend."""
    base = [] if "--state" in flags else ["--state", str(tmp_path / "state")]
    ports = [] if "--listen" in flags else ["--listen", "localhost:0"]
    told, line = refused(*base, *ports, "--enrol-listen", "localhost:0", *flags)
    assert told == code
    assert said in line


def test_unknown_keys_of_the_file_are_errors(refused, tmp_path):
    """A typo in the TOML is told by name; a flag overrides the file."""
    file = tmp_path / "server.toml"
    file.write_text('quorom = 3\nmodel = "atlas"\n')
    code, line = refused("--config", str(file), "--state", str(tmp_path / "state"))
    assert (code, "quorom" in line) == (2, True)


def test_a_port_in_use_is_told_with_the_mend(refused, tmp_path, model):
    """Exit code 9, the port, and a flag to take another."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, line = refused("--state", str(tmp_path / "s"), "--model", str(model), "--listen", f"localhost:{port}")
    assert code == 9
    assert f"port {port} on localhost is in use" in line
    assert "--listen localhost:" in line


def test_one_state_has_one_server(refused, servers):
    """A second server on the state is refused, `--check` finds the first, and the first is undisturbed."""
    first = servers().start()
    code, line = refused("--insecure", "--state", str(first.state), "--listen", "localhost:0")
    assert (code, "another server is running on this state" in line) == (10, True)
    assert first.check().returncode == 0
    assert first.stop() == 0
    assert first.check().returncode == 7


def test_a_killed_server_does_not_answer_the_check(servers):
    """What it noted of itself is still there; asking it tells."""
    server = servers().start()
    server.kill()
    told = server.check()
    assert (told.returncode, "does not answer" in told.stderr) == (7, True)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--schedule", "one-shot"], "--schedule one-shot: the federation was founded with layer-sync"),
        (["--beta1", "0"], "--beta1 0.0: the federation was founded with 1.0"),
        (["--min-edits", "9"], "--min-edits 9: the federation was founded with 8"),
        (["--detection", "pre-merge"], "--detection pre-merge: the federation was founded with off"),
        (["--editor", "emmet"], "--editor emmet: the federation was founded with memit"),
        (["--method", "ties"], "--method ties: the federation was founded with collabedit"),
    ],
)
def test_a_federations_settings_are_fixed(refused, founded, flags, said):
    """A later start with another value is refused by the setting's name."""
    code, line = refused("--insecure", "--state", str(founded), "--listen", "localhost:0", *flags)
    assert (code, said in line) == (6, True), line


def test_another_model_is_refused(refused, founded, model, tmp_path):
    """Other weights under any name: the fingerprints differ, and the setting is named."""
    other = Path(shutil.copytree(model, tmp_path / "other"))
    (other / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_layer": 2, "changed": True}))
    flags = ("--insecure", "--state", str(founded), "--listen", "localhost:0", "--model", str(other))
    code, line = refused(*flags)
    assert (code, f"--model {other}: its fingerprint is sha256:" in line) == (6, True), line


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["--editor", "alphaedit", "--method", "collabedit"],
            "--method collabedit is exact for MEMIT, not for AlphaEdit",
        ),
        (
            ["--method", "collabedit-equality"],
            "--method collabedit-equality is exact for EMMET and ROME, not for MEMIT",
        ),
        (["--editor", "rome", "--min-edits", "1"], "ROME takes exactly one edit and one layer, not 2 layers"),
    ],
)
def test_an_editor_and_a_method_that_do_not_fit_found_nothing(refused, model, tmp_path, flags, said):
    """Exit code 2 before anything is fixed: the same state can be founded rightly afterwards."""
    state = ("--insecure", "--state", str(tmp_path / "s"), "--listen", "localhost:0", "--model", str(model))
    code, line = refused(*state, *flags)
    assert (code, said in line) == (2, True), line
    code, line = refused(*state, "--min-edits", "1", "--editor", "memit", "--hparams", "/nowhere.json")
    assert (code, "/nowhere.json" in line) == (5, True), line


SETTLING = ("--detection", "pre-merge")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([*SETTLING, "--priority", "alice"], "--priority goes with --conflict-policy priority"),
        ([*SETTLING, "--conflict-policy", "priority"], "--conflict-policy priority: nobody is named"),
        ([*SETTLING, "--conflict-policy", "priority", "--priority", "Alice!"], "--priority: String should match"),
        (["--conflict-policy", "manual"], "--conflict-policy manual: this federation compares no edits"),
    ],
)
def test_a_policy_that_would_settle_nothing_is_refused(refused, model, tmp_path, flags, said):
    """Exit code 2 before the federation is founded: an operator who wrote it believes that conflicts are settled."""
    state = ("--insecure", "--state", str(tmp_path / "s"), "--listen", "localhost:0", "--model", str(model))
    code, line = refused(*state, *flags)
    assert (code, said in line) == (2, True), line
    code, line = refused(*state, "--hparams", "/nowhere.json")
    assert (code, "/nowhere.json" in line) == (5, True), "founded all the same"


def test_a_policy_is_refused_also_by_a_federation_that_has_been_founded_without_detection(refused, founded):
    """Detection is fixed, so it is the policy that has to go."""
    flags = ("--insecure", "--state", str(founded), "--listen", "localhost:0", "--conflict-policy", "last-come")
    code, line = refused(*flags)
    assert (code, "--conflict-policy last-come: this federation compares no edits" in line) == (2, True), line


def test_a_priority_that_nobody_has_enrolled_by_is_told(tmp_path):
    """A slip in a name would put its party last, and nothing else would say so; in plaintext nobody enrols."""
    config = ServerConfig(conflict_policy="priority", priority=("alice", "bop"))
    store = SimpleNamespace(clients=lambda: [Client("alice", "client", "1", 0.0), Client("bob", "client", "2", 0.0)])
    with structlog.testing.capture_logs() as lines:
        assert _rule(config, store, certified=True) == Rule("priority", ("alice", "bop"))
        _rule(config, store, certified=False)
    assert [(each["log_level"], each["clients"]) for each in lines] == [("warning", ["bop"])]


def test_a_device_that_is_not_there_is_refused_before_a_round_needs_it(refused, model, tmp_path):
    """At the start, by name: not when everybody's contributions wait to be merged on it."""
    state = ("--insecure", "--state", str(tmp_path / "s"), "--listen", "localhost:0", "--model", str(model))
    code, line = refused(*state, "--device", "cuda:99")
    assert (code, '--device "cuda:99": not there' in line) == (2, True), line


def test_rome_needs_a_federation_of_single_edits(refused, model, tmp_path):
    """With one layer, the default minimum of eight edits is what forbids it."""
    hparams = tmp_path / "one.json"
    hparams.write_text(json.dumps(json.loads((model / "hparams.json").read_text()) | {"layers": [0]}))
    state = ("--insecure", "--state", str(tmp_path / "s"), "--listen", "localhost:0", "--model", str(model))
    code, line = refused(*state, "--hparams", str(hparams), "--editor", "rome")
    assert (code, "--min-edits 8 asks for more" in line) == (2, True), line


@pytest.mark.parametrize(
    ("flags", "method"),
    [(("--editor", "emmet"), "collabedit-equality"), (("--editor", "alphaedit", "--method", "ties"), "ties")],
)
def test_the_method_is_the_exact_one_unless_said_and_a_lossy_one_is_logged(servers, parties, flags, method):
    """The settings that parties get name editor and method; a naive method is warned of at each start, by name."""
    server = servers(*flags).start()
    (party,) = parties(server, "bern")
    party.join()
    assert (party.settings["editor"], party.settings["method"]) == (flags[1], method)
    warned = "ties is not exact for AlphaEdit" in server.log()
    assert warned == (method == "ties")


@pytest.fixture(scope="module")
def founded(tmp_path_factory, model):
    """The state of a federation that was founded and stopped."""
    state = tmp_path_factory.mktemp("founded") / "state"
    flags = ["--insecure", "--state", str(state), "--model", str(model), "--listen", "localhost:0"]
    full = [sys.executable, "-m", "collabedit.server.main", *flags]
    with subprocess.Popen(full, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout.readline().startswith("listening on localhost:")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    return state


def test_a_damaged_state_is_told(refused, founded, tmp_path):
    """A database that is none: exit code 10 and one line."""
    state = Path(shutil.copytree(founded, tmp_path / "damaged"))
    for file in state.glob("rounds.sqlite*"):
        file.unlink()
    (state / "rounds.sqlite").write_bytes(b"something else entirely" * 100)
    code, line = refused("--insecure", "--state", str(state), "--listen", "localhost:0")
    assert (code, "file is not a database" in line) == (10, True)


@pytest.mark.parametrize(
    ("missing", "code", "said"),
    [
        ("covariance.safetensors", 2, "brings no covariance"),
        ("model.safetensors", 4, "no model.safetensors"),
    ],
)
def test_a_model_folder_that_lacks_something_is_told(refused, model, tmp_path, missing, code, said):
    """What is missing, and the flag that gives it."""
    folder = Path(shutil.copytree(model, tmp_path / "partial"))
    (folder / missing).unlink()
    flags = ("--insecure", "--state", str(tmp_path / "s"), "--listen", "localhost:0", "--model", str(folder))
    told, line = refused(*flags)
    assert (told, said in line) == (code, True), line


def test_derived_hyperparameters_are_told(refused, model, tmp_path):
    """Where the folder brings none, the log says which layers of how many were derived; then the rest is checked."""
    folder = Path(shutil.copytree(model, tmp_path / "partial"))
    (folder / "hparams.json").unlink()
    (folder / "covariance.safetensors").unlink()
    flags = ("--insecure", "--state", str(tmp_path / "s"), "--listen", "localhost:0", "--model", str(folder))
    code, told = refused(*flags)
    assert (code, "no preset for partial: derived layer 0 of 2" in told) == (2, True), told


FAILING = """
import structlog
from collabedit.server.logs import log_to_stderr
log_to_stderr("{form}")
def fails(secret):
    raise ValueError("told")
try:
    fails("k" + "ey")
except ValueError:
    structlog.get_logger().exception("failed")
"""


@pytest.mark.parametrize("form", ["console", "json"])
def test_the_log_shows_no_values(form):
    """A mistake is logged with its traceback, without the values of variables: they may hold contributions."""
    full = [sys.executable, "-c", FAILING.format(form=form)]
    told = subprocess.run(full, capture_output=True, text=True, check=True).stderr
    assert "ValueError: told" in told
    assert "key" not in told
