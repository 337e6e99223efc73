"""`collab edit`, `merge` and `eval`: files in, files out, and what one party alone would have got."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from collabedit.client.loading import load_model
from collabedit.client.memit import global_edit
from collabedit.client.metrics import score
from collabedit.client.target_store import TargetStore
from collabedit.client.targets import find_targets
from collabedit.client.weights import add_update
from collabedit.common.contribution_file import ContributionFile
from collabedit.common.covariance_file import CovarianceFile
from collabedit.common.editors import editor_of
from collabedit.common.edits import parse_lines
from collabedit.common.model_folder import ModelFolder, find_model
from collabedit.common.prior import Prior


@pytest.fixture
def parties(tmp_path: Path, kit, records) -> tuple[Path, Path]:
    """The records dealt to two parties."""
    first = kit.write_lines(tmp_path / "ours.jsonl", records[:2])
    return first, kit.write_lines(tmp_path / "theirs.jsonl", records[2:])


def engine_global(folder: ModelFolder, kit, lines: list[str], store: Path, **how) -> tuple[dict, object]:
    """Δ of one party that holds every edit, by the z vectors that the parties found; and the unedited model."""
    loaded = load_model(folder)
    hparams, edits = folder.preset, parse_lines(lines).edits
    priors = {w: Prior(CovarianceFile.open(folder.covariance).mean(w), hparams.mom2_update_weight) for w in kit.weights}
    templates = folder.context_templates
    targets = find_targets(loaded, edits, hparams, templates, store=TargetStore(store))
    assert targets.reused == len(edits)
    return global_edit(loaded, edits, targets, hparams, templates, priors, **how), loaded


@pytest.mark.parametrize("encoding", ["factored", "dense"])
@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-6), ("float64", 1e-9)])
def test_merge_equals_the_global_edit(
    collab, kit, model_folder: Path, parties, tmp_path: Path, encoding: str, dtype: str, most: float
) -> None:
    """Two parties' simultaneous contributions merge to what one party with all edits gets, whatever the encoding."""
    files = []
    for edits in parties:
        files.append(tmp_path / f"{edits.stem}.safetensors")
        ran = collab(
            "edit", "--model", model_folder, "--edits", edits, "--spread", "simultaneous", "--encoding", encoding,
            "--dtype", dtype, "--targets", tmp_path / "z", "--out", files[-1], "--json",
        )  # fmt: skip
        assert ran.code == 0, ran.err
        assert ran.json["edits"] == 2
        assert ran.json["weights"] == list(kit.weights)
    merged = tmp_path / "merged.safetensors"
    ran = collab("merge", "--model", model_folder, "--out", merged, "--json", *files)
    assert ran.code == 0, ran.err
    assert ran.json["method"] == "collabedit"

    folder = ModelFolder(model_folder, "tiny")
    lines = [line for edits in parties for line in edits.read_text().splitlines()]
    expected, loaded = engine_global(folder, kit, lines, tmp_path / "z", spread="simultaneous")
    got = load_file(merged)
    assert set(got) == set(expected)
    for weight, update in expected.items():
        error = (got[weight] - folder.weight(weight).double() - update).norm() / update.norm()
        assert error <= most
        add_update(loaded, weight, update)

    records = tmp_path / "all.jsonl"
    records.write_text("\n".join(lines))
    ran = collab("eval", "--model", model_folder, "--weights", merged, "--records", records, "--json")
    assert ran.code == 0, ran.err
    scores = score(loaded, parse_lines(lines).edits)
    assert {kind: ran.json[kind] for kind in ("ES", "PS", "NS", "Score")} == scores.row()


def test_edit_takes_memit_json_given_c0_and_templates(
    collab, kit, model_folder: Path, edits_file: Path, tmp_path: Path
) -> None:
    """MEMIT's published JSON with all its keys, a C0 made elsewhere and given templates; Δ and S in full, by name."""
    hparams, templates = tmp_path / "EleutherAI_gpt-j-6B.json", tmp_path / "templates.json"
    hparams.write_text(json.dumps(kit.memit | {"mom2_update_weight": 15000, "v_lr": 5e-1}))
    templates.write_text(json.dumps([["{}"]]))
    c0, out = kit.write_c0(tmp_path / "C0.safetensors"), tmp_path / "dense.safetensors"
    ran = collab(
        "edit", "--model", model_folder, "--edits", edits_file, "--hparams", hparams, "--covariance", c0,
        "--context-templates", templates, "--spread", "sequential", "--residual-shares", "equal",
        "--encoding", "dense", "--dtype", "float64", "--out", out,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "taken on trust" in ran.err
    tensors = load_file(out)
    assert set(tensors) == {f"{weight}.{half}" for weight in kit.weights for half in ("delta", "kkt")}
    assert all(each.dtype == torch.float64 for each in tensors.values())
    metadata = ContributionFile.open(out).metadata
    assert (metadata.algorithm, metadata.spread, metadata.residual_shares) == ("MEMIT", "sequential", "equal")
    assert metadata.model_fingerprint
    assert metadata.covariance_fingerprint
    assert metadata.edits == len(kit.facts)
    prompts = [fact[1].encode() for fact in kit.facts]
    assert not any(prompt in out.read_bytes() for prompt in prompts)


def test_edit_samples_templates_where_none_are_given(collab, kit, edits_file: Path, tmp_path: Path) -> None:
    """Without templates in the folder or on the command line they are sampled, alike every time, and this is said."""
    folder = kit.make_folder(tmp_path / "bare")
    (folder / "context_templates.json").unlink()
    outs = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    for out in outs:
        ran = collab("edit", "--model", folder, "--edits", edits_file, "--out", out)
        assert ran.code == 0, ran.err
        assert "sampled from the model" in ran.err
    assert outs[0].read_bytes() == outs[1].read_bytes()


def test_the_model_goes_where_and_in_the_precision_that_is_asked(
    collab, model_folder: Path, edits_file: Path, tmp_path: Path
) -> None:
    """accelerate may place it, in half precision; a device that is not there is told, with what may be asked for."""
    base = ("edit", "--model", model_folder, "--edits", edits_file)
    for name, flags in {"whole": (), "half": ("--device", "auto", "--model-dtype", "bfloat16")}.items():
        ran = collab(*base, *flags, "--out", tmp_path / f"{name}.safetensors")
        assert ran.code == 0, ran.err
    whole, half = (load_file(tmp_path / f"{name}.safetensors") for name in ("whole", "half"))
    for name, tensor in whole.items():
        if name.endswith("kkt_factor"):
            gram, rounded = tensor @ tensor.T, half[name] @ half[name].T
            assert 0 < float((rounded - gram).norm() / gram.norm()) < 0.05
    ran = collab(*base, "--device", "cuda:99", "--out", tmp_path / "o.safetensors")
    assert (ran.code, "device cuda:99" in ran.err) == (2, True)


def test_found_targets_are_read_back(collab, model_folder: Path, edits_file: Path, tmp_path: Path) -> None:
    """With --targets a second run finds the z vectors of the first, and writes the same bytes."""
    outs = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    for out in outs:
        ran = collab("edit", "--model", model_folder, "--edits", edits_file, "--targets", tmp_path / "z", "--out", out)
        assert ran.code == 0, ran.err
    assert len(list((tmp_path / "z").glob("*.safetensors"))) == 4
    assert outs[0].read_bytes() == outs[1].read_bytes()


@pytest.mark.parametrize("editor", ["emmet", "alphaedit"])
def test_a_siblings_contributions_merge_to_its_global_edit(
    collab, kit, model_folder: Path, parties, tmp_path: Path, editor: str
) -> None:
    """With no further flag `collab merge` takes the editor from the files and merges exactly: PMET's shares, dense."""
    files = []
    for edits in parties:
        files.append(tmp_path / f"{edits.stem}.safetensors")
        ran = collab(
            "edit", "--model", model_folder, "--edits", edits, "--editor", editor, "--spread", "simultaneous",
            "--residual-shares", "square-root", "--encoding", "dense", "--dtype", "float64",
            "--targets", tmp_path / "z", "--out", files[-1],
        )  # fmt: skip
        assert ran.code == 0, ran.err
    merged = tmp_path / "merged.safetensors"
    ran = collab("merge", "--model", model_folder, "--out", merged, *files)
    assert ran.code == 0, ran.err
    folder = ModelFolder(model_folder, "tiny")
    lines = [line for edits in parties for line in edits.read_text().splitlines()]
    how = {"spread": "simultaneous", "shares": "square-root", "editor": editor_of(editor, folder.preset)}
    expected, _ = engine_global(folder, kit, lines, tmp_path / "z", **how)
    for weight, update in expected.items():
        error = (load_file(merged)[weight] - folder.weight(weight).double() - update).norm() / update.norm()
        assert error <= 1e-9


def test_alphaedit_teaches_atlas_and_leaves_neighbours_alone(collab, tmp_path: Path) -> None:
    """`collab edit --editor alphaedit` by two parties and `collab merge` on the bundled model: taken, none lost."""
    edits = find_model("atlas").path / "edits" / "three"
    files, records = [], tmp_path / "all.jsonl"
    for party in ("party-1", "party-2"):
        lines = (edits / f"{party}.jsonl").read_text().splitlines(keepends=True)[:8]
        mine = tmp_path / f"{party}.jsonl"
        mine.write_text("".join(lines))
        with records.open("a") as every:
            every.writelines(lines)
        files.append(tmp_path / f"{party}.safetensors")
        ran = collab("edit", "--model", "atlas", "--edits", mine, "--editor", "alphaedit", "--out", files[-1])
        assert ran.code == 0, ran.err
        assert ContributionFile.open(files[-1]).metadata.algorithm == "AlphaEdit"
    merged = tmp_path / "merged.safetensors"
    assert collab("merge", "--model", "atlas", "--out", merged, *files).code == 0
    found = collab("eval", "--model", "atlas", "--weights", merged, "--records", records, "--json").json
    assert found["ES"] > 0.7
    assert found["NS"] > 0.95


@pytest.mark.parametrize("method", ["simple-average", "task-arithmetic", "ties"])
def test_naive_methods_merge_files_too(collab, kit, model_folder: Path, parties, tmp_path: Path, method: str) -> None:
    """Every method writes finite merged weights that differ from the base's."""
    files = []
    for edits in parties:
        files.append(tmp_path / f"{edits.stem}.safetensors")
        assert collab("edit", "--model", model_folder, "--edits", edits, "--out", files[-1]).code == 0
    merged = tmp_path / "merged.safetensors"
    ran = collab("merge", "--model", model_folder, "--method", method, "--dtype", "model", "--out", merged, *files)
    assert ran.code == 0, ran.err
    for weight, tensor in load_file(merged).items():
        base = ModelFolder(model_folder, "tiny").weight(weight)
        assert tensor.dtype == base.dtype
        assert bool(torch.isfinite(tensor).all())
        assert not torch.equal(tensor, base)


def test_covariance_is_measured_in_one_pass_and_edited_with(
    collab, kit, model_folder: Path, edits_file: Path, tmp_path: Path
) -> None:
    """`collab covariance` writes C0 of every edited layer with fingerprints, and `collab edit` takes it in silence."""
    text, c0 = tmp_path / "text.txt", tmp_path / "C0.safetensors"
    text.write_text("The capital of Norway is Oslo.\n\nLeo Tolstoy walked along the river with you.\n" * 40)
    ran = collab("covariance", "--model", model_folder, "--text", text, "--tokens", 400, "--out", c0, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["tokens"] == 400
    opened = CovarianceFile.open(c0)
    assert set(opened.weights) == set(kit.weights)
    assert "sha256:" in opened.metadata.text
    for weight in kit.weights:
        assert torch.linalg.eigvalsh(opened.mean(weight)).min() > -1e-9
    ran = collab(
        "edit", "--model", model_folder, "--edits", edits_file, "--covariance", c0, "--spread", "simultaneous",
        "--out", tmp_path / "out.safetensors",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "trust" not in ran.err


def test_eval_prints_a_table_and_leaves_missing_kinds_out(collab, model_folder: Path, tmp_path: Path) -> None:
    """Records without target_true have no ES, PS or NS: dashes in the table, null in the JSON."""
    records = tmp_path / "bare.jsonl"
    records.write_text('{"prompt": "The capital of {} is", "subject": "Norway", "target_new": "Stockholm"}\n')
    ran = collab("eval", "--model", model_folder, "--records", records, "--json")
    assert ran.code == 0, ran.err
    assert [ran.json[kind] for kind in ("ES", "PS", "NS", "Score")] == [None] * 4
    ran = collab("eval", "--model", model_folder, "--records", records, "--each")
    assert "line-1" in ran.out
    assert "-" in ran.out
