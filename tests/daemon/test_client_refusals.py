"""What a client refuses, or is refused: one line that says why, one with the mend, and the exit code."""

from __future__ import annotations

import json
import re
import shutil
import socket
from pathlib import Path

import pytest

from collabedit.client.state import ClientState
from collabedit.client.state_folder import StateFolder
from collabedit.common.errors import BadFileError, ContributionError, ExitCode, RoundError


def assert_refused(process, code: ExitCode, *said: str) -> None:
    """The process ends with `code` and says why in one line, without a traceback."""
    assert process.end() == code, process.said
    errors = [line for line in process.lines if line.startswith("error: ")]
    assert len(errors) == 1, process.said
    assert "Traceback" not in process.said
    for each in said:
        assert each in process.said
    assert process.out == []


@pytest.fixture
def mine(tools, tmp_path: Path) -> Path:
    """Eight good edits."""
    return tools.write_edits(tmp_path / "mine.jsonl", tools.facts(0, 8))


@pytest.mark.wheel
def test_bad_lines_are_all_named_and_nothing_is_touched(host, tmp_path: Path) -> None:
    """Code 3: every bad line by number with its mend; no state is made, nobody is called."""
    bad = tmp_path / "mine.jsonl"
    bad.write_text('{"prompt": "The mother tongue of Darrieux is", "subject": "Danielle", "target_new": "a"}\n[1]\n')
    client = host.client("ada", "localhost:9", bad)
    assert_refused(
        client, ExitCode.BAD_EDITS, f"{bad}:1: the subject", "write the prompt with {}", f"{bad}:2: not a JSON object"
    )
    assert not (host.folder / "ada").exists()


@pytest.mark.wheel
def test_no_server(host, mine: Path) -> None:
    """Code 7 with `--once`: the address that nobody answers at is named."""
    with socket.socket() as bound:  # held but not listening: nobody else, and no connection to itself, can answer there
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        assert_refused(host.client("ada", address, mine, "--once"), ExitCode.UNREACHABLE, address)


def test_a_daemon_waits_for_a_server_that_is_away(host, mine: Path) -> None:
    """Without `--once` the client says that nobody answers and goes on asking; Ctrl-C ends it with 130."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    client = host.client("ada", address, mine)
    client.wait_for("waiting for it")
    client.popen.send_signal(2)
    assert client.end() == ExitCode.INTERRUPTED
    assert "the same command goes on from here" in client.said


def test_without_enrolment(host, tools, mine: Path) -> None:
    """Code 8, and the command that enrols."""
    client = host.start(tools.BIN / "collab-client", "--edits", mine, "--state", host.folder / "ada")
    assert_refused(client, ExitCode.REFUSED_IDENTITY, "has not enrolled", "collab pki enrol")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--insecure",), "--insecure needs --client-id"),
        (("--insecure", "--client-id", "A B"), "--client-id"),
        (("--patience", "0"), "--patience"),
        (("--insecure", "--client-id", "me", "--server", "example.org:50051"), "plaintext is for this host alone"),
        (("--insecure", "--client-id", "me", "--server", "nowhere"), "is no address"),
    ],
)
def test_flags_that_cannot_be(host, tools, mine: Path, flags: tuple[str, ...], said: str) -> None:
    """Code 2, naming the flag."""
    client = host.start(tools.BIN / "collab-client", "--edits", mine, "--state", host.folder / "ada", *flags)
    assert_refused(client, ExitCode.USAGE, said)


def test_unknown_keys_of_the_toml_are_errors_and_flags_win(host, tools, mine: Path, tmp_path: Path) -> None:
    """The TOML holds the same settings; one that is not known is refused, one given as a flag is overridden."""
    toml = tmp_path / "client.toml"
    state = host.folder / "ada"
    toml.write_text(f'edits = "{mine}"\nstate = "{state}"\nserver = "localhost:1"\nonce = true\nserve = "x"\n')
    assert_refused(host.start(tools.BIN / "collab-client", "--config", toml), ExitCode.USAGE, "serve")
    toml.write_text(toml.read_text().replace('serve = "x"', 'insecure = true\nclient_id = "ada"'))
    assert_refused(host.start(tools.BIN / "collab-client", "--config", toml), ExitCode.UNREACHABLE, "localhost:1")
    client = host.start(tools.BIN / "collab-client", "--config", toml, "--server", "localhost:2")
    assert_refused(client, ExitCode.UNREACHABLE, "localhost:2")


def test_another_model_or_covariance(host, told, tools, model: Path, mine: Path, tmp_path: Path) -> None:
    """Code 6: the fingerprint that differs is named, model or covariance. Code 4: there is no such model."""
    other = tools.make_model(tmp_path / "other", seed=1)
    client = host.client("eve", told.address, mine, "--once", "--model", other)
    assert_refused(client, ExitCode.MISMATCH, "the model's fingerprint is sha256:")
    client = host.client("eve", told.address, mine, "--once", "--covariance", _changed_covariance(model, tmp_path))
    assert_refused(client, ExitCode.MISMATCH, "the covariance's fingerprint is sha256:")
    client = host.client("eve", told.address, mine, "--once", "--model", "no-such-model")
    assert_refused(client, ExitCode.BAD_MODEL, 'no model "no-such-model"')


def _changed_covariance(model: Path, folder: Path) -> Path:
    file = folder / "changed.safetensors"
    content = bytearray((model / "covariance.safetensors").read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    return file


def test_the_state_of_another_federation(host, told, mine: Path) -> None:
    """Code 10: both federations are named, and nothing of the folder changes."""
    folder = StateFolder(host.folder / "ada")
    folder.make()
    with ClientState(folder.ledger) as state:
        state.bind("plaintext-of-others")
    client = host.client("ada", told.address, mine, "--once")
    assert_refused(client, ExitCode.STATE, "plaintext-of-others", told.results["ada"]["federation"], "--state")


def test_a_state_folder_in_use(host, told, mine: Path) -> None:
    """Code 10: one client at a time on a folder."""
    with StateFolder(host.folder / "ada").locked():
        assert_refused(
            host.client("ada", told.address, mine, "--once"), ExitCode.STATE, "in use by another collab-client"
        )


def test_fewer_edits_than_the_federation_takes(host, told, tools, tmp_path: Path) -> None:
    """Code 11: how many are missing; nothing is uploaded, and the round stays as it was."""
    few = tools.write_edits(tmp_path / "few.jsonl", tools.facts(0, 5))
    with tools.observing(told.address, tmp_path) as observer:
        before = observer.federation.now()
        with pytest.raises(RoundError, match=r"5 edit\(s\) wait.*no fewer than 8.*3 missing") as refusal:
            tools.in_process(host, "eve", told.address, few).end()
        assert observer.federation.now() == before
    assert refusal.value.exit_code == ExitCode.ROUND_FAILED


def test_edits_that_are_too_alike_are_not_sent(host, told, tools, tmp_path: Path) -> None:
    """Eight edits of one prompt and subject have one key: KKᵀ's rank is too small, so the client leaves the round."""
    one = tools.facts(0, 1)[0]
    alike = [one.model_copy(update={"target_new": each, "relation_id": each}) for each in "abcdefgh"]
    client = tools.in_process(host, "eve", told.address, tools.write_edits(tmp_path / "alike.jsonl", alike))
    with pytest.raises(ContributionError, match=r"KKᵀ has rank 1; the federation's minimum is 8"):
        client.end()
    with ClientState(StateFolder(host.folder / "eve").ledger) as state:
        assert len(state.waiting()) == 8
        assert state.round is None


def test_no_quorum(host, tools, mine: Path) -> None:
    """Code 11: the round's reason is told, and the edits wait for the next; `collab rounds show` tells it too."""
    _, address = host.server("--quorum", "2", "--round-deadline", "1", "--entry-window", "0")
    with pytest.raises(RoundError, match=r"round 1 ended without our edits: no quorum: [01] of 2") as refusal:
        tools.in_process(host, "ada", address, mine).end()
    assert refusal.value.exit_code == ExitCode.ROUND_FAILED
    with ClientState(StateFolder(host.folder / "ada").ledger) as state:
        assert all("no quorum" in each.reason for each in state.waiting())
        assert len(state.waiting()) == 8
    shown = host.start(tools.BIN / "collab", "rounds", "show", "1", "--insecure", "--server", address)
    assert shown.end() == 0
    (member,) = (line for line in shown.out if line.startswith("ada "))
    assert re.search(r"out +8 +(late: no contribution within 1 s|no quorum: 1 of 2)$", member.rstrip()), shown.out


def test_bad_lines_are_left_out_when_asked(host, tools, tmp_path: Path) -> None:
    """`--skip-invalid`: bad lines are told and left out, the others are merged."""
    file = tools.write_edits(tmp_path / "mine.jsonl", tools.facts(0, 8))
    too_long = tools.facts(8, 1)[0].model_copy(update={"subject": "Danielle Darrieux " * 40})
    file.write_text("not json\n" + file.read_text() + too_long.model_dump_json() + "\n")
    _, address = host.server("--entry-window", "0")
    client = tools.in_process(host, "ada", address, file, skip_invalid=True)
    assert client.end()["merged"] == 8
    assert f"{file}:1: not JSON" in client.said
    assert f"{file}:10: " in client.said


def test_merged_edits_are_not_sent_again(host, told, tools, tmp_path: Path) -> None:
    """The same command after its edits were merged says so at once, from its ledger, with code 0."""
    file = tools.write_edits(tmp_path / "mine.jsonl", told.edits["ada"])
    shutil.copytree(told.host.folder / "ada", host.folder / "ada")
    result = tools.in_process(host, "ada", told.address, file).end()
    assert json.loads(json.dumps(result)) == told.results["ada"]


def test_weights_that_are_not_what_they_should_be_are_not_written(told, tools, model: Path, tmp_path: Path) -> None:
    """A file from the server is checked for name, shape, dtype and finiteness before a weight changes."""
    import torch

    from collabedit.client.loading import load_model
    from collabedit.client.model_version import VersionedModel
    from collabedit.client.snapshot import LayerVersion, Version
    from collabedit.client.weights import read_weight
    from collabedit.common.model_folder import find_model
    from collabedit.common.tensor_file import write_tensors

    loaded = load_model(find_model(str(model)))
    with tools.observing(told.address, tmp_path) as observer:
        settings = observer.federation.settings(patience=5)
    versioned = VersionedModel(loaded, settings, lambda digest: tmp_path / digest)
    name = settings.edited_weights[0]
    good = torch.ones(32, 128)
    bad = {
        "another-name": {"lm_head.weight": good},
        "two-tensors": {name: good, "more": good},
        "transposed": {name: good.T.contiguous()},
        "float64": {name: good.double()},
        "not-finite": {name: good.clone().fill_(float("nan"))},
    }
    before = read_weight(loaded, name)
    for digest, tensors in bad.items():
        write_tensors(tmp_path / digest, tensors)
        with pytest.raises(BadFileError, match="server"):
            versioned.catch_up(Version(1, (LayerVersion(name, digest),)))
    with pytest.raises(BadFileError, match="nobody edits"):
        versioned.catch_up(Version(1, (LayerVersion("lm_head.weight", "float64"),)))
    assert torch.equal(read_weight(loaded, name), before)
    assert versioned.base.version == 0
