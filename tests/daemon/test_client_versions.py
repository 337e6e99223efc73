"""Versions as a client follows them: back to an earlier one, and over many at once."""

from __future__ import annotations

import json
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from collabedit.client.loading import LoadedModel, load_model
from collabedit.client.memit import global_edit
from collabedit.client.model_version import Priors, VersionedModel
from collabedit.client.snapshot import LayerVersion, Version
from collabedit.client.state_folder import StateFolder
from collabedit.client.transfer import upload
from collabedit.client.weights import restored, weights_digest, write_weight
from collabedit.common.accumulated import side_by_side
from collabedit.common.contribution import Metadata
from collabedit.common.contribution_file import write_contribution
from collabedit.common.covariance_file import CovarianceFile
from collabedit.common.errors import BadFileError
from collabedit.common.factors import factor_update
from collabedit.common.model_folder import find_model
from collabedit.common.prior import Prior
from collabedit.common.tensor_file import write_tensors
from collabedit.common.triangle import pack

ONE_SHOT = ("--entry-window", "0", "--schedule", "one-shot", "--spread", "simultaneous")


def accumulated(server: Path, version: int) -> dict[str, tuple[torch.Tensor | None, torch.Tensor | None]]:
    """ΣS of each weight up to a version, withheld or not, as the server's disk has it."""
    found = {}
    with sqlite3.connect(server / "rounds.sqlite") as database:
        rows = database.execute(
            "SELECT weight, kkt_released, kkt_withheld FROM layer_weights WHERE round = ?", (version,)
        )
        for weight, *lists in rows:
            digests = [digest for each in lists for digest in json.loads(each)]
            files = [next((server / "blobs" / "whole").rglob(digest)) for digest in digests]
            found[weight] = side_by_side([next(iter(load_file(file).values())) for file in files])
    return found


def priors_on(server: Path, loaded: LoadedModel, version: int) -> dict[str, Prior]:
    """C = λ·C0 + ΣS of everything up to a version, by weight."""
    folder = loaded.folder
    mean, weight = CovarianceFile.open(folder.covariance).mean, folder.preset.mom2_update_weight
    priors = {name: Prior(mean(name), weight) for name in folder.edited_weights(folder.preset)}
    for name, (factor, packed) in accumulated(server, version).items():
        priors[name] = replace(priors[name], accumulated=factor, accumulated_triangle=packed)
    return priors


def check_built_on(
    observer, tools, model: Path, server: Path, state: Path, *, version: int, base: int, edits, spread
) -> None:
    """Asserts that `version` is what one party computes from these edits on `base`, its weights and covariance."""
    loaded = load_model(find_model(str(model)))
    folder = loaded.folder
    with restored(loaded, folder.edited_weights(folder.preset)):
        for name, tensor in observer.weights(base).items():
            write_weight(loaded, name, tensor)
        targets = tools.kept_targets(loaded, [state], [edits])
        priors = priors_on(server, loaded, base)
        updates = global_edit(loaded, edits, targets, folder.preset, folder.context_templates, priors, spread=spread)
        assert tools.relative_error(loaded, observer.weights(version), updates) <= 1e-6


def addresses(observer, version: int) -> list[tuple[str, str, tuple[str, ...]]]:
    """Content addresses of a version's weights and accumulated covariance."""
    return [(each.weight, each.digest, each.kkt_digests) for each in observer.federation.version(version).layers]


def rollback(host, address: str, *flags: object) -> SimpleNamespace:
    """`collab rollback` as the plaintext server's admin."""
    command = ("rollback", "--insecure", "--server", address, "--json", *map(str, flags))
    process = host.start(Path(sys.executable).parent / "collab", *command)
    code = process.end()
    return SimpleNamespace(code=code, said=process.said, json=json.loads("\n".join(process.out)) if not code else None)


def test_clients_follow_a_rollback_and_build_on_it(host, tools, model: Path, tmp_path: Path) -> None:
    """Two rounds, back to version 1: the client holds its bits, and the next round stands on it and its covariance."""
    _, address = host.server("--entry-window", "0")
    edits = tools.facts(0, 24)
    file = tools.write_edits(tmp_path / "mine.jsonl", edits[:8])
    client = host.client("ada", address, file, *tools.ONE_AT_A_TIME)
    client.wait_for("round 1 published as version 1: 8 of 8 edits merged")
    tools.write_edits(file, edits[8:16], "a")
    client.wait_for("round 2 published as version 2: 8 of 8 edits merged")
    done = rollback(host, address, "--to", 1, "--expect", 2, "--reason", "wrong facts")
    assert done.json == {"version": 3, "restores": 1, "before": 2}, done.said
    assert rollback(host, address, "--to", 1, "--expect", 2).json["version"] == 3, "asked again"
    assert rollback(host, address, "--to", 1, "--expect", 1).code == 11
    client.wait_for("the model holds version 3")
    with tools.observing(address, tmp_path) as observer:
        assert addresses(observer, 3) == addresses(observer, 1) != addresses(observer, 2)
        held = {each.name for each in StateFolder(host.folder / "ada").blobs.iterdir()}
        assert {digest for _, digest, _ in addresses(observer, 1)} <= held
        tools.write_edits(file, edits[16:], "a")
        client.wait_for("round 4 published as version 4: 8 of 8 edits merged")
        state = host.folder / "ada"
        check_built_on(
            observer,
            tools,
            model,
            host.folder / "server",
            state,
            version=4,
            base=3,
            edits=edits[16:],
            spread="sequential",
        )
    client.popen.terminate()
    assert client.end() == 0


def test_a_rollback_puts_members_out_and_their_edits_wait(host, tools, tmp_path: Path) -> None:
    """A client in the round is told why; with `--once` that is its end. The base model is a version like others."""
    _, address = host.server("--entry-window", "0", "--quorum", "2")
    file = tools.write_edits(tmp_path / "ada.jsonl", tools.facts(0, 8))
    bob = tools.write_edits(tmp_path / "bob.jsonl", tools.facts(8, 8))
    first = [tools.in_process(host, name, address, each) for name, each in (("ada", file), ("bob", bob))]
    assert [each.end()["merged"] for each in first] == [8, 8]
    tools.write_edits(file, tools.facts(16, 8), "a")
    waiting = host.client("ada", address, file, "--once", *tools.ONE_AT_A_TIME)
    waiting.wait_for("round 2: layer 1 of 3 sent")
    assert rollback(host, address, "--to", 0).json == {"version": 2, "restores": 0, "before": 1}
    assert waiting.end() == 11
    assert "rolled back to version 0 by admin" in waiting.said
    with tools.observing(address, tmp_path) as observer:
        assert addresses(observer, 2) == []


def published_noise(observer, model: Path, round_: int, folder: Path, settings) -> None:
    """A whole one-shot round of one party, of random factors."""
    torch.manual_seed(round_)
    updates = {
        name: factor_update(0.1 * torch.randn(128, 8), torch.randn(32, 8)).to(torch.float32)
        for name in settings.edited_weights
    }
    said = Metadata(
        model_fingerprint=settings.model_fingerprint, covariance_fingerprint=settings.covariance_fingerprint,
        schedule="one-shot", spread="simultaneous", residual_shares="remaining", algorithm="MEMIT",
        round=round_, base_version=round_ - 1, edits=8,
    )  # fmt: skip
    observer.federation.enter(round_, round_ - 1, 8)
    write_contribution(folder / "noise", updates, said)
    digest = upload(observer.federation.connection, folder / "noise")
    now = observer.federation.contribute(round_, 0, 0, digest)
    while now.latest_version < round_:
        now = observer.federation.await_change(now.revision, 20)


def test_a_client_that_missed_ten_rounds_catches_up_in_one_step(host, tools, model: Path, tmp_path: Path) -> None:
    """It was in round 1; it holds version 11 after one step, and round 12 is exact on its weights and covariance."""
    _, address = host.server(*ONE_SHOT)
    edits = tools.facts(0, 16)
    file = tools.write_edits(tmp_path / "ada.jsonl", edits[:8])
    assert tools.in_process(host, "ada", address, file).end()["version"] == 1
    with tools.observing(address, tmp_path, "zoe") as zoe:
        settings = zoe.federation.settings(patience=5)
        for round_ in range(2, 12):
            published_noise(zoe, model, round_, tmp_path, settings)
        tools.write_edits(file, edits[8:], "a")
        client = tools.in_process(host, "ada", address, file)
        assert client.end()["version"] == 12
        held = [line.split()[-1] for line in client.said.splitlines() if "the model holds version" in line]
        assert held == ["11", "12"]
        blobs = {each.name for each in StateFolder(host.folder / "ada").blobs.iterdir()}
        pieces = {digest for version in (11, 12) for *_, of_sum in addresses(zoe, version) for digest in of_sum}
        assert pieces, "round 2 released what rounds 1 and 2 had added"
        assert not pieces & blobs, "a client that uploads factors downloads nothing of the sum"
        state = host.folder / "ada"
        check_built_on(
            zoe,
            tools,
            model,
            host.folder / "server",
            state,
            version=12,
            base=11,
            edits=edits[8:],
            spread="simultaneous",
        )


def test_c_is_computed_from_pieces_and_only_where_all_of_it_is_known(model: Path, tmp_path: Path) -> None:
    """Pieces of either form are read and summed; where something is withheld the client knows that C is not it."""
    loaded = load_model(find_model(str(model)))
    name, other, _ = loaded.folder.edited_weights(loaded.folder.preset)
    factor = torch.randn(128, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    write_tensors(tmp_path / "thin", {f"{name}.kkt_factor": factor})
    write_tensors(tmp_path / "packed", {f"{name}.kkt_triangle": pack(factor @ factor.mT)})
    held = VersionedModel(loaded, SimpleNamespace(edited_weights=(name, other)), tmp_path.joinpath)  # type: ignore[arg-type]
    held.base = Version(1, (LayerVersion(name, "", ("packed", "thin")), LayerVersion(other, "", (), kkt_withheld=True)))
    priors = Priors(
        SimpleNamespace(hparams=loaded.folder.preset, beta0=1.0, beta1=0.5),  # type: ignore[arg-type]
        CovarianceFile.open(loaded.folder.covariance),
        held,
    )
    known = CovarianceFile.open(loaded.folder.covariance).mean(name) * loaded.folder.preset.mom2_update_weight
    torch.testing.assert_close(priors[name].dense(), known + factor @ factor.mT, rtol=1e-12, atol=1e-12)
    assert [priors.known(each) for each in (name, other)] == [True, False]
    write_tensors(tmp_path / "thin", {f"{name}.kkt_factor": factor[:100]})
    with pytest.raises(BadFileError, match="shape"):
        priors[name]


def test_any_version_is_written_bit_for_bit(model: Path, tmp_path: Path) -> None:
    """Forth, back and to the base model, in any order: the weights are those of the version, to the last bit."""
    loaded = load_model(find_model(str(model)))
    names = loaded.folder.edited_weights(loaded.folder.preset)
    generator = torch.Generator().manual_seed(3)
    for number in (1, 2):
        for name in names:
            tensor = torch.randn(loaded.folder.shape(name), generator=generator)
            write_tensors(tmp_path / f"{number}-{name}", {name: tensor})
    versions = {0: Version(0)}
    for version, layers_of in ((1, 1), (2, 2), (3, 1), (4, 0)):
        layers = tuple(LayerVersion(name, f"{layers_of}-{name}") for name in names) if layers_of else ()
        versions[version] = Version(version, layers)
    held = VersionedModel(loaded, SimpleNamespace(edited_weights=names), tmp_path.joinpath)  # type: ignore[arg-type]
    digests = {}
    for number in (0, 1, 2, 3, 2, 4, 3, 1, 0):
        held.catch_up(versions[number])
        digests.setdefault(number, weights_digest(loaded, names))
        assert digests[number] == weights_digest(loaded, names)
    assert digests[0] == digests[4]
    assert digests[1] == digests[3]
    assert len({digests[0], digests[1], digests[2]}) == 3
