"""What a user may get wrong: one line that names it, the mend, an exit code, and never a traceback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from collabedit.common.contribution_file import ContributionFile
from collabedit.common.errors import ExitCode


@pytest.fixture
def contribution(collab, model_folder: Path, edits_file: Path, tmp_path: Path) -> Path:
    """A good contribution file."""
    out = tmp_path / "good.safetensors"
    ran = collab("edit", "--model", model_folder, "--edits", edits_file, "--out", out)
    assert ran.code == 0, ran.err
    return out


def rewritten(path: Path, target: Path, *, tensors: dict | None = None, **metadata: str | None) -> Path:
    """A copy with other tensors, and with metadata changed or (None) left out."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        said = dict(file.metadata())
    kept = {key: value for key, value in {**said, **metadata}.items() if value is not None}
    save_file(load_file(path) | (tensors or {}), target, metadata=kept)
    return target


def assert_refused(ran, code: ExitCode, *words: str) -> None:
    """One `error:` line with all the words in it, the exit code, nothing on standard output, no traceback."""
    assert ran.code == code, ran.err
    lines = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, ran.err
    for word in words:
        assert word in ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{not json", ["mine.jsonl:2", "not JSON"]),
        (
            json.dumps({"prompt": "The capital of Oslo is", "subject": "Norway", "target_new": "x"}),
            ["mine.jsonl:2", "Norway"],
        ),
        (json.dumps({"prompt": "The capital of {} is", "subject": "Norway"}), ["mine.jsonl:2", "target_new"]),
        ("[1, 2]", ["mine.jsonl:2", "not a JSON object"]),
    ],
)
def test_a_bad_line_is_named_by_number(
    collab, kit, records, model_folder: Path, tmp_path: Path, line: str, words: list[str]
) -> None:
    """Nothing is written until the file is clean or --skip-invalid is given."""
    edits, out = kit.write_lines(tmp_path / "mine.jsonl", records[:1]), tmp_path / "out.safetensors"
    edits.write_text(edits.read_text() + line + "\n")
    arguments = ("edit", "--model", model_folder, "--edits", edits, "--out", out)
    assert_refused(collab(*arguments), ExitCode.BAD_EDITS, *words, "--skip-invalid")
    assert not out.exists()
    ran = collab(*arguments, "--skip-invalid")
    assert ran.code == 0, ran.err
    assert "mine.jsonl:2" in ran.err


def test_files_that_are_not_there(collab, model_folder: Path, edits_file: Path, tmp_path: Path) -> None:
    """A missing model, edits file, hparams file, covariance or output folder is named."""
    out = tmp_path / "out.safetensors"
    gone = tmp_path / "gone"

    def edit(**changed: object) -> object:
        flags = {"model": model_folder, "edits": edits_file, "out": out} | changed
        return collab("edit", *(word for name, value in flags.items() for word in (f"--{name}", value)))

    assert_refused(edit(model="gpt5"), ExitCode.BAD_MODEL, 'no model "gpt5"')
    assert_refused(edit(edits=gone), ExitCode.BAD_EDITS, str(gone))
    assert_refused(edit(hparams=gone), ExitCode.BAD_FILE, str(gone))
    assert_refused(edit(covariance=gone), ExitCode.BAD_FILE, str(gone))
    assert_refused(edit(out=gone / "out.safetensors"), ExitCode.USAGE, str(gone))
    assert_refused(edit(model=tmp_path), ExitCode.BAD_MODEL, str(tmp_path))


def test_hyperparameters_and_templates_that_cannot_be(collab, kit, model_folder: Path, edits_file, tmp_path) -> None:
    """The key that is wrong is named, and the layer that the model lacks."""
    hparams, templates = tmp_path / "h.json", tmp_path / "t.json"
    arguments = ("edit", "--model", model_folder, "--edits", edits_file, "--out", tmp_path / "o.safetensors")
    hparams.write_text(json.dumps(kit.memit | {"v_lr": -1}))
    assert_refused(collab(*arguments, "--hparams", hparams), ExitCode.BAD_FILE, "h.json", "v_lr")
    hparams.write_text(json.dumps(kit.memit | {"layers": [17]}))
    assert_refused(collab(*arguments, "--hparams", hparams), ExitCode.BAD_MODEL, "h.17")
    templates.write_text('[["no blank"]]')
    assert_refused(collab(*arguments, "--context-templates", templates), ExitCode.BAD_FILE, "no blank")
    templates.write_text('{"a": 1}')
    assert_refused(collab(*arguments, "--context-templates", templates), ExitCode.BAD_FILE, "t.json")


def test_derived_hyperparameters_are_told(collab, model_folder: Path, edits_file: Path, tmp_path: Path) -> None:
    """For a folder without hparams.json and a model without a preset, standard error says what was derived."""
    folder = Path(shutil.copytree(model_folder, tmp_path / "bare"))
    (folder / "hparams.json").unlink()
    ran = collab("edit", "--model", folder, "--edits", edits_file, "--out", tmp_path / "o.safetensors")
    assert "no preset for bare: derived layer 1 of 4, where gpt2-xl's lie" in ran.err


def test_flags_that_cannot_be(collab, model_folder: Path, edits_file: Path, tmp_path: Path) -> None:
    """A missing flag and a value that is none of the choices end with exit code 2."""
    assert_refused(collab("edit", "--model", model_folder, "--out", tmp_path / "o"), ExitCode.USAGE, "--edits")
    ran = collab("edit", "--model", model_folder, "--edits", edits_file, "--spread", "wide", "--out", tmp_path / "o")
    assert ran.code == ExitCode.USAGE
    assert "sequential" in ran.err


def test_damaged_contributions_are_refused(collab, kit, model_folder: Path, contribution: Path, tmp_path: Path) -> None:
    """Truncated, not finite, of another shape, without a layer: each names the file, and nothing is written."""
    merged, bad = tmp_path / "merged.safetensors", tmp_path / "bad.safetensors"
    merge = ("merge", "--model", model_folder, "--out", merged, contribution, bad)
    assert_refused(collab(*merge), ExitCode.BAD_FILE, "bad.safetensors", "no such file")
    bad.write_bytes(contribution.read_bytes()[:-100])
    assert_refused(collab(*merge), ExitCode.BAD_FILE, "bad.safetensors")
    factor = f"{kit.weights[0]}.kkt_factor"
    tensor = load_file(contribution)[factor]
    rewritten(contribution, bad, tensors={factor: torch.full_like(tensor, float("nan"))})
    assert_refused(collab(*merge), ExitCode.BAD_FILE, "bad.safetensors", kit.weights[0], "finite")
    rewritten(contribution, bad, tensors={factor: tensor[:64].contiguous()})
    assert_refused(collab(*merge), ExitCode.BAD_FILE, "bad.safetensors", kit.weights[0])
    kept = {name: each for name, each in load_file(contribution).items() if name.startswith(kit.weights[0])}
    save_file(kept, bad)
    assert_refused(collab(*merge), ExitCode.BAD_FILE, "bad.safetensors", kit.weights[1])
    assert not merged.exists()


@pytest.mark.parametrize("what", ["model_fingerprint", "covariance_fingerprint"])
def test_fingerprints_are_compared(collab, model_folder: Path, contribution: Path, tmp_path: Path, what: str) -> None:
    """A fingerprint that differs is refused by name; one that is not there is merged with a warning."""
    merged = tmp_path / "merged.safetensors"
    other = rewritten(contribution, tmp_path / "other.safetensors", **{what: "sha256:" + "0" * 64})
    silent = rewritten(contribution, tmp_path / "silent.safetensors", **{what: None})
    merge = ("merge", "--model", model_folder, "--out", merged, contribution)
    assert_refused(collab(*merge, other), ExitCode.MISMATCH, "other.safetensors", what.replace("_", " "))
    assert not merged.exists()
    ran = collab(*merge, silent)
    assert ran.code == 0, ran.err
    assert "warning" in ran.err
    assert "silent.safetensors" in ran.err


def test_a_contribution_without_metadata_is_merged(collab, kit, model_folder: Path, contribution, tmp_path) -> None:
    """A file that another programme wrote, without any metadata, is merged with warnings, its tensors as they are."""
    bare, merged = tmp_path / "bare.safetensors", tmp_path / "merged.safetensors"
    save_file(load_file(contribution), bare)
    ran = collab("merge", "--model", model_folder, "--out", merged, bare)
    assert ran.code == 0, ran.err
    assert ran.err.count("the metadata lacks") == 2
    assert ContributionFile.open(bare).metadata.model_fingerprint is None
    assert set(load_file(merged)) == set(kit.weights)


def test_contributions_of_different_schedules_are_refused(collab, model_folder: Path, contribution, tmp_path) -> None:
    """Spreads that differ do not add up."""
    other = rewritten(contribution, tmp_path / "other.safetensors", spread="simultaneous")
    ran = collab("merge", "--model", model_folder, "--out", tmp_path / "m.safetensors", contribution, other)
    assert_refused(ran, ExitCode.MISMATCH, "other.safetensors", "spread")


def edited(collab, model_folder: Path, edits_file: Path, out: Path, editor: str) -> Path:
    """A contribution by one of the editors."""
    ran = collab("edit", "--model", model_folder, "--edits", edits_file, "--editor", editor, "--out", out)
    assert ran.code == 0, ran.err
    return out


def test_an_editor_and_a_method_that_do_not_fit_are_refused(
    collab, model_folder: Path, edits_file: Path, tmp_path: Path
) -> None:
    """A method that is exact for other editors only is refused with the right one's name; a naive one is warned of."""
    file, merged = edited(collab, model_folder, edits_file, tmp_path / "e.safetensors", "emmet"), tmp_path / "m"
    merge = ("merge", "--model", model_folder, "--out", merged, file)
    ran = collab(*merge, "--method", "collabedit")
    assert_refused(ran, ExitCode.USAGE, "collabedit is exact for MEMIT, not for EMMET", "--method collabedit-equality")
    assert not merged.exists()
    ran = collab(*merge, "--json")
    assert (ran.json["editor"], ran.json["method"]) == ("emmet", "collabedit-equality")
    assert "exact" not in ran.err
    ran = collab(*merge, "--method", "simple-average")
    assert ran.code == 0, ran.err
    assert "warning: simple-average is not exact for EMMET" in ran.err


def test_contributions_of_different_editors_are_refused(
    collab, model_folder: Path, edits_file: Path, contribution: Path, tmp_path: Path
) -> None:
    """MEMIT's and AlphaEdit's do not add up, whichever comes first; an unknown algorithm is refused by name."""
    file = edited(collab, model_folder, edits_file, tmp_path / "alpha.safetensors", "alphaedit")
    merge = ("merge", "--model", model_folder, "--out", tmp_path / "m.safetensors")
    ran = collab(*merge, contribution, file)
    assert_refused(ran, ExitCode.MISMATCH, "alpha.safetensors", "algorithm is AlphaEdit, not MEMIT")
    ran = collab(*merge, file, contribution)
    assert_refused(ran, ExitCode.MISMATCH, "good.safetensors", "algorithm is MEMIT, not AlphaEdit")
    other = rewritten(contribution, tmp_path / "other.safetensors", algorithm="MALMEN")
    assert_refused(collab(*merge, other), ExitCode.MISMATCH, "other.safetensors", "MALMEN")


def test_rome_is_refused_for_more_than_it_is(collab, kit, model_folder: Path, edits_file: Path, tmp_path: Path) -> None:
    """Several layers or edits: the message points to EMMET. One of each is taken."""
    hparams, one = tmp_path / "h.json", kit.write_lines(tmp_path / "one.jsonl", [kit.record(0, kit.facts[0])])
    hparams.write_text(json.dumps(kit.memit | {"layers": [2]}))
    rome = ("edit", "--model", model_folder, "--editor", "rome", "--out", tmp_path / "o.safetensors")
    assert_refused(collab(*rome, "--edits", one), ExitCode.USAGE, "2 layers", "--editor emmet")
    ran = collab(*rome, "--edits", edits_file, "--hparams", hparams)
    assert_refused(ran, ExitCode.USAGE, "4 edits", "--editor emmet")
    ran = collab(*rome, "--edits", one, "--hparams", hparams)
    assert ran.code == 0, ran.err
    assert ContributionFile.open(tmp_path / "o.safetensors").metadata.algorithm == "ROME"


def test_keys_that_depend_on_each_other_are_warned_of(collab, kit, model_folder: Path, tmp_path: Path) -> None:
    """Two prompts that begin with one subject have one key: EMMET says so, by layer; MEMIT has nothing to say."""
    facts = [("{} plays the", "Toko Yasuda", "river", "guitar"), ("{} is located in", "Toko Yasuda", "Norway", "Spain")]
    edits = kit.write_lines(tmp_path / "two.jsonl", [kit.record(i, fact) for i, fact in enumerate(facts)])
    arguments = ("edit", "--model", model_folder, "--edits", edits, "--out", tmp_path / "o.safetensors")
    ran = collab(*arguments, "--editor", "emmet")
    assert ran.code == 0, ran.err
    assert f"{kit.weights[0]}: 2 edits have 1 independent keys" in ran.err
    assert "independent" not in collab(*arguments).err


def test_a_null_space_with_nothing_in_it_is_refused(collab, kit, model_folder: Path, edits_file, tmp_path) -> None:
    """The weight, the least eigenvalue, and the hyperparameter to change."""
    hparams = tmp_path / "h.json"
    hparams.write_text(json.dumps(kit.memit | {"nullspace_threshold": 1e-9}))
    alpha = ("edit", "--model", model_folder, "--edits", edits_file, "--editor", "alphaedit", "--hparams", hparams)
    ran = collab(*alpha, "--out", tmp_path / "o.safetensors")
    assert_refused(ran, ExitCode.USAGE, kit.weights[0], "the least is 1e-06", "raise nullspace_threshold")


def test_a_covariance_of_another_model_is_refused(collab, kit, model_folder: Path, edits_file, tmp_path) -> None:
    """A covariance file that says another model's fingerprint is refused before the model is loaded."""
    c0 = kit.write_c0(tmp_path / "C0.safetensors", model_fingerprint="sha256:" + "0" * 64)
    arguments = ("edit", "--model", model_folder, "--edits", edits_file, "--out", tmp_path / "o.safetensors")
    assert_refused(collab(*arguments, "--covariance", c0), ExitCode.MISMATCH, "C0.safetensors", "another model")


def test_eval_refuses_weights_that_do_not_fit(collab, model_folder: Path, edits_file: Path, tmp_path: Path) -> None:
    """A file of other weights is named."""
    weights = tmp_path / "w.safetensors"
    save_file({"transformer.h.1.mlp.c_proj.weight": torch.zeros(3, 3)}, weights)
    arguments = ("eval", "--model", model_folder, "--records", edits_file, "--weights", weights)
    assert_refused(collab(*arguments), ExitCode.BAD_FILE, "w.safetensors", "shape")
    save_file({"no.such.weight": torch.zeros(3, 3)}, weights)
    assert_refused(collab(*arguments), ExitCode.BAD_MODEL, "no.such.weight")
