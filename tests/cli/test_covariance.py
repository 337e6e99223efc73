"""`collab covariance`: sources, stopping rules, and runs that are killed."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from collabedit.common.covariance_file import CovarianceFile
from collabedit.common.errors import ExitCode

ARTICLES = [
    f"The capital of Norway is Oslo, and number {n} sang.\nLeo Tolstoy walked along the river." for n in range(60)
]

DYING = """
import os, signal, sys
from collabedit.client.checkpoint import Checkpoint
from collabedit.cli.main import main

save, saved = Checkpoint.save, []

def last_words(self, *args):
    save(self, *args)
    saved.append(args)
    if len(saved) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

Checkpoint.save = last_words
sys.argv = ["collab", *sys.argv[1:]]
main()
"""


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Sixty articles of two lines, three newlines between them."""
    path = tmp_path / "articles.txt"
    path.write_text("\n\n\n".join(ARTICLES))
    return path


def command(model: Path, text: Path, out: Path, *more: object) -> list[str]:
    """A run in many small passes, with a checkpoint after each."""
    said = (
        "covariance", "--model", model, "--text", text, "--separator", r"\n\n\n", "--batch-tokens", 128,
        "--checkpoint-every", 0, "--out", out, *more,
    )  # fmt: skip
    return [str(each) for each in said]


def test_a_killed_run_goes_on_to_the_same_bits(collab, model_folder: Path, text: Path, tmp_path: Path) -> None:
    """SIGKILL after the third checkpoint; the same command ends with the bytes of a run that nobody disturbed."""
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    assert collab(*command(model_folder, text, whole)).code == 0
    died = subprocess.run(
        [sys.executable, "-c", DYING, *command(model_folder, text, broken)], capture_output=True, text=True, check=False
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    partial = broken.with_name("broken.safetensors.partial")
    assert partial.is_file()
    assert not broken.exists()
    ran = collab(*command(model_folder, text, broken))
    assert ran.code == 0, ran.err
    assert "going on behind" in ran.err
    assert not partial.exists()
    one, other = load_file(whole), load_file(broken)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert CovarianceFile.open(whole).metadata == CovarianceFile.open(broken).metadata


def test_a_broken_off_run_of_something_else_is_left_alone(
    collab, model_folder: Path, text: Path, tmp_path: Path
) -> None:
    """Another length or another text is refused by name, and the checkpoint stays as it was."""
    out = tmp_path / "C0.safetensors"
    subprocess.run([sys.executable, "-c", DYING, *command(model_folder, text, out)], capture_output=True, check=False)
    partial = out.with_name("C0.safetensors.partial")
    before = partial.read_bytes()
    ran = collab(*command(model_folder, text, out, "--length", 9))
    assert ran.code == ExitCode.MISMATCH
    assert "another length" in ran.err
    text.write_text(text.read_text().replace("number 1 ", "number one "))
    ran = collab(*command(model_folder, text, out))
    assert ran.code == ExitCode.MISMATCH
    assert "documents are not those" in ran.err
    text.write_text(ARTICLES[0])
    ran = collab(*command(model_folder, text, out))
    assert ran.code == ExitCode.MISMATCH
    assert partial.read_bytes() == before
    partial.write_bytes(before[:50])
    assert collab(*command(model_folder, text, out)).code == ExitCode.BAD_FILE


def test_it_stops_where_it_is_told_and_says_so_in_the_file(
    collab, kit, model_folder: Path, text: Path, tmp_path: Path
) -> None:
    """--samples counts documents, --tokens 2x is twice the layer's inputs; the file says both, and the rule."""
    out = tmp_path / "C0.safetensors"
    ran = collab(*command(model_folder, text, out, "--samples", 5, "--json"))
    assert ran.code == 0, ran.err
    said = CovarianceFile.open(out).metadata
    assert (ran.json["documents"], said.documents, said.stopped_by) == (5, 5, "5 documents")
    ran = collab(*command(model_folder, text, out, "--samples", 50, "--tokens", "2x", "--json"))
    d_in = CovarianceFile.open(out).mean(kit.weights[0]).shape[0]
    said = CovarianceFile.open(out).metadata
    assert ran.json["tokens"] == said.tokens == 2 * d_in
    assert said.stopped_by == f"50 documents or {2 * d_in} tokens"
    assert said.documents < 50
    assert said.text.startswith("articles.txt sha256:")


def test_a_dataset_and_standard_input_give_the_same(
    collab, model_folder: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same documents from a file, from a Hugging Face dataset on disk and from standard input: the same C0."""
    pytest.importorskip("datasets")
    records = tmp_path / "records"
    records.mkdir()
    (records / "a.jsonl").write_text("\n".join(json.dumps({"text": each}) for each in ARTICLES) + "\n")
    ways = {
        "file": ("--text", text, "--separator", r"\n\n\n"),
        "dataset": ("--dataset", records),
        "input": ("--text", "-", "--separator", r"\n\n\n"),
    }
    found = {}
    for name, way in ways.items():
        out = tmp_path / f"{name}.safetensors"
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(text.read_bytes())))
        ran = collab("covariance", "--model", model_folder, *way, "--out", out)
        assert ran.code == 0, ran.err
        found[name] = load_file(out)
    for name in ("dataset", "input"):
        assert all(torch.equal(found["file"][each], found[name][each]) for each in found["file"])


def test_what_cannot_be_is_said_before_the_model_is_run(collab, model_folder: Path, text: Path, tmp_path: Path) -> None:
    """No source, two sources, a stopping rule that is no number, an empty text."""
    model, out = ("--model", model_folder), ("--out", tmp_path / "C0.safetensors")
    assert collab("covariance", *model, *out).code == ExitCode.USAGE
    ran = collab("covariance", *model, "--text", text, "--dataset", "wikipedia", *out)
    assert (ran.code, "--dataset" in ran.err) == (ExitCode.USAGE, True)
    assert collab("covariance", *model, "--text", text, "--tokens", "ten", *out).code == ExitCode.USAGE
    text.write_text("\n \n")
    ran = collab("covariance", *model, "--text", text, *out)
    assert (ran.code, "no text" in ran.err) == (ExitCode.USAGE, True)
