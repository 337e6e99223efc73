"""`collab layers` as a user runs it: figures, pictures, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from collabedit.common.errors import ExitCode

CLASSES = [
    "first subject token", "middle subject tokens", "last subject token", "first token after", "further tokens",
    "last token",
]  # fmt: skip
KINDS = ["hidden", "mlp", "attention"]
QUICK = ("--model", "atlas", "--max-facts", "6", "--samples", "2")


def height_of(picture: Path) -> int:
    """Opens a PNG. Returns its height in pixels; it must have more than one colour."""
    from matplotlib.image import imread

    pixels = imread(picture)
    assert pixels.std() > 0.01
    return int(pixels.shape[0])


@pytest.fixture(scope="module")
def atlas_facts() -> list[dict[str, Any]]:
    """Records of known_1000.json's kind that atlas knows, and one it does not."""
    from collabedit.common.model_folder import find_model
    from collabedit.experiments.bundled import party_edits

    edits = party_edits(find_model("atlas"), 3, 2)[0]
    facts = [{"prompt": edit.text, "subject": edit.subject, "attribute": edit.target_true} for edit in edits]
    return [*facts, {**facts[0], "attribute": edits[0].target_new}]


def test_the_subjects_peak_of_atlas(collab, tmp_path: Path) -> None:
    """One object on standard output, a picture of every token class; the early site is the subject's last token."""
    ran = collab("layers", *QUICK, "--out", tmp_path / "map.png", "--json")
    assert ran.code == 0, ran.err
    said = ran.json
    assert set(said) == {
        "model", "layers", "facts", "left_out", "noise", "window", "clean", "corrupted", "effects", "recommended",
        "preset", "pictures",
    }  # fmt: skip
    assert (said["model"], said["layers"], said["facts"], said["left_out"], said["window"]) == ("atlas", 6, 6, 0, 1)
    assert said["noise"].keys() == {"factor", "std", "samples", "seed"}
    assert [name for name in CLASSES if name in said["effects"]] == list(said["effects"])
    for row in said["effects"].values():
        assert 1 <= row["facts"] <= 6
        for kind in KINDS:
            assert len(row[kind]["mean"]) == len(row[kind]["error"]) == 6
    assert said["clean"] > 0.9 > 0.5 > said["corrupted"]
    last = said["effects"]["last subject token"]
    assert min(last["hidden"]["mean"][:3]) > 0.5
    assert max(said["effects"]["first subject token"]["hidden"]["mean"]) < 0.1
    assert said["preset"] == [0, 1, 2]
    chosen = said["recommended"]
    assert chosen.keys() == {"layers", "peak", "sure", "carried_to", "rule"}
    assert (chosen["layers"], chosen["peak"], chosen["sure"], chosen["carried_to"]) == ([0], 0, True, 2)
    assert said["pictures"] == [str(tmp_path / "map.png")]
    height_of(tmp_path / "map.png")


def test_the_same_again(collab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs agree to the last bit, pictures too; without --out the picture is MODEL-layers.png in this folder."""
    monkeypatch.chdir(tmp_path)
    arguments = ("layers", *QUICK[:-3], "2", "--samples", "1", "--window", "2", "--json")
    first = collab(*arguments)
    picture = (tmp_path / "atlas-layers.png").read_bytes()
    assert first.code == 0, first.err
    assert collab(*arguments).out == first.out
    assert (tmp_path / "atlas-layers.png").read_bytes() == picture
    assert collab(*arguments, "--seed", "1").json["corrupted"] != first.json["corrupted"]


def test_facts_of_ones_own(collab, atlas_facts, tmp_path: Path) -> None:
    """An array as ROME's; what the model does not answer by itself is counted and left out; single facts are drawn."""
    prompts, out = tmp_path / "known.json", tmp_path / "map.png"
    prompts.write_text(json.dumps(atlas_facts, indent=2))
    ran = collab("layers", "--model", "atlas", "--prompts", prompts, "--samples", "2", "--per-fact", "1", "--out", out)
    assert ran.code == 0, ran.err
    assert "1 of 3 facts left out" in ran.err
    assert ran.out.startswith("2 facts")
    assert "recommended layers: 0" in ran.out
    assert "edits layers 0, 1, 2" in ran.out
    assert "±" in ran.out
    assert height_of(tmp_path / "map-fact-01.png") != height_of(out)
    assert not (tmp_path / "map-fact-02.png").exists()


def test_a_single_fact(collab, atlas_facts, tmp_path: Path) -> None:
    """There is no standard error then: null, and the peak is not sure. Facts come on standard input as well."""
    prompts = tmp_path / "known.jsonl"
    prompts.write_text(json.dumps(atlas_facts[0]) + "\n")
    ran = collab("layers", "--model", "atlas", "--prompts", prompts, "--samples", "1", "--out", tmp_path / "1.png")
    assert ran.code == 0, ran.err
    assert "trace more facts" in ran.out
    said = collab(
        "layers", "--model", "atlas", "--prompts", prompts, "--samples", "1", "--out", tmp_path / "1.png", "--json"
    ).json
    assert said["effects"]["last token"]["hidden"]["error"] == [None] * 6
    assert said["recommended"]["sure"] is False


def test_a_model_that_knows_nothing(collab, model_folder: Path, edits_file: Path, tmp_path: Path) -> None:
    """A random model names no object by itself: told in a line, with the mend, and no picture is left."""
    out = tmp_path / "map.png"
    ran = collab("layers", "--model", model_folder, "--prompts", edits_file, "--out", out)
    assert ran.code == ExitCode.USAGE
    assert "knows none of the 4 facts" in ran.err
    assert "--prompts" in ran.err
    assert not out.exists()


def test_bad_records_are_named_by_line(collab, atlas_facts, tmp_path: Path) -> None:
    """Nothing is run until the file is clean or --skip-invalid is given."""
    prompts = tmp_path / "known.jsonl"
    lines = [json.dumps(atlas_facts[0]), '{"prompt": "Here is {}", "subject": "Ann"}', "{not json"]
    prompts.write_text("\n".join(lines))
    arguments = ("layers", "--model", "atlas", "--prompts", prompts, "--samples", "1", "--out", tmp_path / "map.png")
    ran = collab(*arguments)
    assert ran.code == ExitCode.BAD_EDITS
    for word in ("known.jsonl:2: no attribute", "known.jsonl:3: not JSON", "--skip-invalid"):
        assert word in ran.err
    ran = collab(*arguments, "--skip-invalid")
    assert ran.code == 0, ran.err
    assert "skipped" in ran.err


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("--model", "atlas", "--prompts", "gone.json"), ExitCode.BAD_EDITS, "gone.json"),
        (("--model", "atlas", "--prompts", "empty.json"), ExitCode.BAD_EDITS, "no facts in it"),
        (("--model", "atlas", "--out", "gone/map.png"), ExitCode.USAGE, "gone/map.png"),
        (("--model", "gone"), ExitCode.BAD_MODEL, "gone"),
        (("--model", "atlas", "--samples", "0"), ExitCode.USAGE, "--samples"),
        (("--model", "atlas", "--noise", "0"), ExitCode.USAGE, "--noise"),
        (("--model", "tiny"), ExitCode.USAGE, "--prompts"),
    ],
)
def test_what_cannot_be(
    collab, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments, code: ExitCode, word: str
) -> None:
    """One line that names it, an exit code, no traceback."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.json").write_text("[]")
    given = [str(model_folder) if each == "tiny" else each for each in arguments]
    ran = collab("layers", *given)
    assert ran.code == code, ran.err
    assert word in ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""
