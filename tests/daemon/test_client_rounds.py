"""Whole rounds: a real server, real client processes, a tiny model."""

from __future__ import annotations

import json
import signal
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from watchfiles import watch

from collabedit.client.edit_file import read_edits
from collabedit.client.loading import load_model
from collabedit.client.main import command
from collabedit.client.memit import global_edit
from collabedit.client.state import ClientState
from collabedit.client.state_folder import StateFolder
from collabedit.client.weights import restored, write_weight
from collabedit.common.accumulated import side_by_side
from collabedit.common.covariance_file import CovarianceFile
from collabedit.common.editors import editor_of
from collabedit.common.errors import ContributionError, ExitCode, IdentityError
from collabedit.common.model_folder import find_model
from collabedit.common.prior import Prior


def priors_of(folder) -> dict[str, Prior]:
    """C = λ·C0 by weight."""
    covariance = CovarianceFile.open(folder.covariance)
    return {name: Prior(covariance.mean(name), folder.preset.mom2_update_weight) for name in covariance.weights}


def test_layer_sync_equals_one_party_with_every_edit(told, tools, model: Path, tmp_path: Path) -> None:
    """What three clients publish in layer-sync is what one party that holds all edits computes from the same z."""
    loaded = load_model(find_model(str(model)))
    states = [told.host.folder / name for name in tools.PARTIES]
    targets = tools.kept_targets(loaded, states, list(told.edits.values()))
    union = [edit for mine in told.edits.values() for edit in mine]
    folder = loaded.folder
    updates = global_edit(loaded, union, targets, folder.preset, folder.context_templates, priors_of(folder))
    with tools.observing(told.address, tmp_path) as observer:
        assert tools.relative_error(loaded, observer.weights(1), updates) <= 1e-6


@pytest.mark.parametrize(
    ("editor", "shares", "most"),
    [("emmet", "equal", 1e-5), ("alphaedit", "remaining", 1e-6), ("memit", "square-root", 1e-6)],
)
def test_layer_sync_is_exact_with_memits_siblings(
    host, tools, model: Path, tmp_path: Path, editor, shares, most
) -> None:
    """`collab-server --editor`: two clients follow it and say it, and publish what one party computes with it.

    The model is in float32: EMMET, which has nothing that damps, enlarges what its rounding does to the next keys.
    """
    flags = ("--editor", editor, "--residual-shares", shares, "--quorum", "2", "--entry-window", "0")
    _, address = host.server(*flags)
    edits, names = [tools.facts(0, 8), tools.facts(8, 8)], ("ada", "bob")
    clients = [
        tools.in_process(host, name, address, tools.write_edits(tmp_path / f"{name}.jsonl", mine))
        for name, mine in zip(names, edits, strict=True)
    ]
    assert [client.end()["merged"] for client in clients] == [8, 8]
    loaded = load_model(find_model(str(model)))
    folder = loaded.folder
    targets = tools.kept_targets(loaded, [host.folder / name for name in names], edits)
    updates = global_edit(
        loaded, [*edits[0], *edits[1]], targets, folder.preset, folder.context_templates, priors_of(folder),
        shares=shares, editor=editor_of(editor, folder.preset),
    )  # fmt: skip
    with tools.observing(address, tmp_path) as observer:
        assert tools.relative_error(loaded, observer.weights(1), updates) <= most


def test_once_prints_one_object_with_a_verdict_for_each_edit(told) -> None:
    """`--once --json` prints round, version, scores and, for each edit of the file, what became of it."""
    for name, result in told.results.items():
        assert (result["round"], result["version"], result["merged"]) == (1, 1, 8)
        assert set(result["scores"]) >= {"ES", "PS", "NS", "Score"}
        assert [row["id"] for row in result["edits"]] == [edit.id for edit in told.edits[name]]
        assert [row["line"] for row in result["edits"]] == list(range(1, 9))
        for row in result["edits"]:
            assert row["status"] in ("verified", "failed")
            assert isinstance(row["scores"]["took"], bool)
            assert 0 <= row["scores"]["ES"] <= 1


def test_once_writes_its_report_and_status_tells_the_same_afterwards(told) -> None:
    """`--once` writes what it returns to `--report`; `collab-client status` knows each edit's life from then on."""
    assert json.loads((told.host.folder / "bob.report").read_text()) == told.results["bob"]
    for name, result in told.results.items():
        ran = CliRunner().invoke(command, ["status", "--state", str(told.host.folder / name), "--json"])
        status = json.loads(ran.stdout)
        assert status["counts"] == result["counts"]
        assert [(each["id"], each["status"]) for each in status["edits"]] == [
            (each["id"], each["status"]) for each in result["edits"]
        ]
        for each in status["edits"]:
            walked = [event["status"] for event in each["life"]]
            assert walked == ["pending", "entered", "merged", each["status"]]


@pytest.mark.slow
def test_killed_clients_come_back_and_the_weights_are_the_same(host, told, tools, tmp_path: Path) -> None:
    """SIGKILL in the search for z, and again between the layers: the same command leads to the same bits.

    What the kill left of a block of the search is found again with the rest of it: the same bits on the disk, too.
    """
    _, address = host.server("--quorum", "3", "--entry-window", "0")
    tools.parties(host.folder)
    mine, *others = (host.folder / f"{name}.jsonl" for name in tools.PARTIES)
    waiting = [tools.in_process(host, file.stem, address, file) for file in others]

    def start():
        return host.client("ada", address, mine, "--once", *tools.ONE_AT_A_TIME)

    (host.folder / "ada" / "targets").mkdir(parents=True)
    first = start()
    next(iter(watch(host.folder / "ada" / "targets", debounce=50, step=10)))
    first.kill()
    found = {file: file.read_bytes() for file in (host.folder / "ada" / "targets").glob("*.safetensors")}
    assert 1 <= len(found) < 8
    second = start()
    second.wait_for("layer 2 of 3 sent")
    second.kill()
    assert "8 targets found, 0 kept from before" in second.said
    assert {file: file.read_bytes() for file in found} == found
    third = start()
    assert [each.end()["merged"] for each in waiting] == [8, 8]
    assert third.end() == 0, third.said
    assert "8 of 8 edits merged" in third.said
    with tools.observing(address, tmp_path) as here, tools.observing(told.address, tmp_path) as there:
        assert here.digests(1) == there.digests(1)


@pytest.mark.parametrize("editor", ["memit", "alphaedit"])
def test_lines_appended_while_it_runs_make_the_next_round(host, tools, model: Path, tmp_path: Path, editor) -> None:
    """The daemon follows its file: too few new edits wait, enough make round 2; one-shot, dense, C0 from the server.

    Round 2 stands on round 1's weights; its C is still λ·C0, because a party alone has contributed and clients compute
    with C here. SIGTERM ends it with 0.
    """
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in model.iterdir():
        if file.name != "covariance.safetensors":
            (bare / file.name).symlink_to(file)
    flags = ("--entry-window", "0", "--schedule", "one-shot", "--encoding", "dense", "--dtype", "float64")
    flags += ("--editor", editor)
    _, address = host.server(*flags)
    edits = tools.facts(0, 16)
    file = tools.write_edits(tmp_path / "mine.jsonl", edits[:8])
    report = tmp_path / "report.json"
    client = host.client("ada", address, file, "--model", bare, "--report", report, *tools.ONE_AT_A_TIME)
    client.wait_for("round 1 published as version 1: 8 of 8 edits merged")
    tools.write_edits(file, edits[8:13], "a")
    client.wait_for("5 edit(s) wait; the federation takes no fewer than 8 at once: 3 missing")
    tools.write_edits(file, edits[13:], "a")
    client.wait_for("round 2 published as version 2: 8 of 8 edits merged")
    client.popen.terminate()
    assert client.end() == 0
    assert json.loads(report.read_text())["merged"] == 16

    loaded = load_model(find_model(str(model)))
    folder, weights = loaded.folder, loaded.folder.edited_weights(loaded.folder.preset)
    solver = editor_of(editor, folder.preset)
    with tools.observing(address, tmp_path) as observer, restored(loaded, weights):
        for version, batch in ((1, edits[:8]), (2, edits[8:])):
            targets = tools.kept_targets(loaded, [host.folder / "ada"], [batch])
            priors = priors_of(folder)
            assert not any(layer.kkt_digests for layer in observer.federation.version(version - 1).layers)
            templates = folder.context_templates
            updates = global_edit(loaded, batch, targets, folder.preset, templates, priors, editor=solver)
            found = observer.weights(version)
            assert tools.relative_error(loaded, found, updates) <= 1e-6
            for name in weights:
                write_weight(loaded, name, found[name])


@pytest.mark.parametrize("editor", ["memit", "alphaedit"])
def test_parties_that_compute_with_c_have_the_sum_of_the_rounds_before(
    host, tools, model: Path, tmp_path: Path, editor
) -> None:
    """Two parties' round is in C of the next (eq. 7): for one of them, and for a third that joins late.

    All that each downloads of ΣS are the pieces that the version names; what is withheld is none of them.
    """
    flags = ("--schedule", "one-shot", "--encoding", "dense", "--dtype", "float64", "--spread", "simultaneous")
    _, address = host.server("--quorum", "2", "--entry-window", "0", "--editor", editor, *flags)
    edits = {"ada": tools.facts(0, 8), "bob": tools.facts(8, 8), "cyd": tools.facts(16, 8)}
    files = {name: tools.write_edits(tmp_path / f"{name}.jsonl", mine) for name, mine in edits.items()}
    first = [tools.in_process(host, name, address, files[name]) for name in ("ada", "bob")]
    assert [each.end()["merged"] for each in first] == [8, 8]
    tools.write_edits(files["ada"], tools.facts(24, 4), "a")
    more = [edit.model_copy(update={"target_new": "Lisbon"}) for edit in edits["bob"][:4]]
    tools.write_edits(files["ada"], more, "a")
    second = [tools.in_process(host, name, address, files[name]) for name in ("ada", "cyd")]
    assert [each.end()["version"] for each in second] == [2, 2]

    loaded = load_model(find_model(str(model)))
    folder, weights = loaded.folder, loaded.folder.edited_weights(loaded.folder.preset)
    batch = [tools.facts(24, 4) + more, edits["cyd"]]
    with tools.observing(address, tmp_path) as observer, restored(loaded, weights):
        for name, tensor in observer.weights(1).items():
            write_weight(loaded, name, tensor)
        targets = tools.kept_targets(loaded, [host.folder / name for name in ("ada", "cyd")], batch)
        priors = priors_of(folder)
        for layer in observer.federation.version(1).layers:
            factor, packed = side_by_side([observer.tensor(digest) for digest in layer.kkt_digests])
            assert packed is not None
            priors[layer.weight] = replace(priors[layer.weight], accumulated=factor, accumulated_triangle=packed)
        updates = global_edit(
            loaded, [*batch[0], *batch[1]], targets, folder.preset, folder.context_templates, priors,
            spread="simultaneous", editor=editor_of(editor, folder.preset),
        )  # fmt: skip
        assert tools.relative_error(loaded, observer.weights(2), updates) <= 1e-6
        pieces = {digest for layer in observer.federation.version(1).layers for digest in layer.kkt_digests}
        assert len(pieces) == len(weights)


@pytest.mark.parametrize("shares", ["remaining", "equal"])
def test_one_shot_simultaneous_is_exact_for_several_clients(host, tools, model: Path, tmp_path: Path, shares) -> None:
    """One upload each with keys and residuals of the unedited model equals the simultaneous global edit."""
    flags = ("--schedule", "one-shot", "--spread", "simultaneous", "--residual-shares", shares)
    _, address = host.server("--quorum", "2", "--entry-window", "0", *flags)
    edits = [tools.facts(0, 9), tools.facts(9, 8)]
    names = ("ada", "bob")
    clients = [
        tools.in_process(host, name, address, tools.write_edits(tmp_path / f"{name}.jsonl", mine))
        for name, mine in zip(names, edits, strict=True)
    ]
    assert [client.end()["merged"] for client in clients] == [9, 8]
    loaded = load_model(find_model(str(model)))
    folder = loaded.folder
    targets = tools.kept_targets(loaded, [host.folder / name for name in names], edits)
    updates = global_edit(
        loaded, [*edits[0], *edits[1]], targets, folder.preset, folder.context_templates, priors_of(folder),
        spread="simultaneous", shares=shares,
    )  # fmt: skip
    with tools.observing(address, tmp_path) as observer:
        assert tools.relative_error(loaded, observer.weights(1), updates) <= 1e-6


def test_a_member_lost_between_layers_costs_a_restart_and_nothing_else(
    host, tools, model: Path, tmp_path: Path
) -> None:
    """A member that stops after its first layer: the others begin again from the base weights, and end without it."""
    _, address = host.server("--quorum", "1", "--entry-window", "1", "--layer-deadline", "1")
    mine = tools.facts(0, 8)
    with tools.observing(address, tmp_path, "zoe") as lost:
        now = lost.federation.join(*tools.handshake(model))
        lost.federation.enter(now.round, 0, 8)
        client = tools.in_process(host, "ada", address, tools.write_edits(tmp_path / "ada.jsonl", mine))
        tools.contribute_noise(lost.federation, model, now.round, tmp_path)
        assert client.end()["merged"] == 8
        assert "a member was lost; again from the first layer" in client.said
        loaded = load_model(find_model(str(model)))
        folder = loaded.folder
        targets = tools.kept_targets(loaded, [host.folder / "ada"], [mine])
        updates = global_edit(loaded, mine, targets, folder.preset, folder.context_templates, priors_of(folder))
        assert tools.relative_error(loaded, lost.weights(1), updates) <= 1e-6


def test_a_client_dropped_while_it_was_away_enters_again(host, tools, tmp_path: Path) -> None:
    """Killed after entering and given up by the server: the same command, `--once`, enters again and merges."""
    _, address = host.server("--entry-window", "0", "--liveness", "1")
    file = tools.write_edits(tmp_path / "ada.jsonl", tools.facts(0, 8))
    folder = StateFolder(host.folder / "ada")
    folder.make()
    with (
        tools.observing(address, tmp_path) as observer,
        tools.observing(address, tmp_path, "ada") as earlier,
        ClientState(folder.ledger) as state,
    ):
        settings = observer.federation.settings(patience=5)
        state.bind(settings.federation)
        state.take_in(read_edits(file))
        state.enter(1)
        now = earlier.federation.enter(1, 0, 8)
        while now.members:
            now = observer.federation.await_change(now.revision, 20)
    client = tools.in_process(host, "ada", address, file)
    assert client.end()["merged"] == 8
    assert "not heard of for 1 s" in client.said


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_goes_and_comes_back_in_the_middle_of_a_round(host, told, tools, tmp_path: Path, number) -> None:
    """Killed or told to stop between two layers: clients wait for it and go on; the weights are the same bits.

    Told to stop it ends with 0. What it tells callers then is tested at the server: a client hears it only where it
    happens to have a call under way.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
    flags = ("--listen", f"127.0.0.1:{port}", "--quorum", "3", "--entry-window", "0")
    server, address = host.server(*flags)
    tools.parties(host.folder)
    mine, *others = (host.folder / f"{name}.jsonl" for name in tools.PARTIES)
    waiting = [tools.in_process(host, file.stem, address, file) for file in others]
    process = host.client("ada", address, mine, "--once", *tools.ONE_AT_A_TIME)
    server.wait_for("layer=1")
    server.popen.send_signal(number)
    assert server.end() == (0 if number is signal.SIGTERM else -number)
    host.server(*flags)
    assert [each.end()["merged"] for each in waiting] == [8, 8]
    assert process.end() == 0, process.said
    with tools.observing(address, tmp_path) as here, tools.observing(told.address, tmp_path) as there:
        assert here.digests(1) == there.digests(1)


def test_rome_merges_one_edit_of_each_party_and_takes_no_second(host, tools, tmp_path: Path) -> None:
    """A federation of single edits: two parties' edits are merged; one with two edits withdraws, and says why."""
    hparams = tmp_path / "one.json"
    hparams.write_text(json.dumps(tools.HPARAMS | {"layers": [2]}))
    flags = ("--editor", "rome", "--min-edits", "1", "--hparams", str(hparams), "--entry-window", "0")
    _, address = host.server(*flags, "--quorum", "2")
    both = tools.in_process(host, "cyd", address, tools.write_edits(tmp_path / "cyd.jsonl", tools.facts(2, 2)))
    with pytest.raises(ContributionError, match="ROME takes exactly one edit"):
        both.end()
    edits = [tools.facts(0, 1), tools.facts(1, 1)]
    clients = [
        tools.in_process(host, name, address, tools.write_edits(tmp_path / f"{name}.jsonl", mine))
        for name, mine in zip(("ada", "bob"), edits, strict=True)
    ]
    assert [client.end()["merged"] for client in clients] == [1, 1]


def test_a_client_with_an_older_state_folder_holds_no_round_up(host, tools, model: Path, tmp_path: Path) -> None:
    """Restored from before it entered: it leaves the round that waits for its next layer, and merges in the next."""
    _, address = host.server("--entry-window", "0", "--layer-deadline", "86400")
    file = tools.write_edits(tmp_path / "ada.jsonl", tools.facts(0, 8))
    with tools.observing(address, tmp_path, "ada") as earlier:
        now = earlier.federation.join(*tools.handshake(model))
        earlier.federation.enter(now.round, 0, 8)
        tools.contribute_noise(earlier.federation, model, now.round, tmp_path)
    client = tools.in_process(host, "ada", address, file)
    result = client.end()
    assert (result["merged"], result["round"]) == (8, 2)
    assert "round 1: left: this state folder is older than our part in it" in client.said
    with tools.observing(address, tmp_path) as observer:
        assert observer.federation.now().latest_version == 2


def test_of_two_processes_with_one_identity_the_older_one_ends(host, tools, model: Path, tmp_path: Path) -> None:
    """It says which, and what to do about it; what it contributed still counts for the one that goes on."""
    _, address = host.server("--entry-window", "0", "--quorum", "2")
    older = tools.in_process(host, "ada", address, tools.write_edits(tmp_path / "ada.jsonl", tools.facts(0, 8)))
    with tools.observing(address, tmp_path) as observer, tools.observing(address, tmp_path, "ada") as newer:
        now = observer.federation.now()
        while not now.contributed:
            now = observer.federation.await_change(now.revision, 20)
        newer.federation.join(*tools.handshake(model))
        observer.federation.enter(now.round, 0, 8)  # news, for which the older one need not wait then
        with pytest.raises(IdentityError, match="another process has joined as ada since") as ended:
            older.end()
        assert newer.federation.await_change(0, 1).contributed == 1
    assert ended.value.exit_code == ExitCode.REFUSED_IDENTITY
