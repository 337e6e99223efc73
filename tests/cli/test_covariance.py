"""`collab covariance`: sources, stopping rules, and runs that are killed."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from collabedit.client.checkpoint import Checkpoint
from collabedit.common.covariance_file import CovarianceFile
from collabedit.common.errors import ExitCode
from collabedit.common.tensor_file import TensorFile

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


@pytest.mark.parametrize("source", ["file", "input"])
def test_a_killed_run_goes_on_to_the_same_bits(
    collab, model_folder: Path, text: Path, tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL after the third checkpoint; the same command ends with the bytes of a run that nobody disturbed.

    Standard input is given again from its beginning.
    """
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    read = text if source == "file" else Path("-")

    def run(out: Path) -> Any:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(text.read_bytes())))
        ran = collab(*command(model_folder, read, out), "--json")
        assert ran.code == 0, ran.err
        return ran

    wanted = run(whole)
    died = subprocess.run(
        [sys.executable, "-c", DYING, *command(model_folder, read, broken)],
        input=text.read_bytes(), capture_output=True, check=False,
    )  # fmt: skip
    assert died.returncode == -signal.SIGKILL, died.stderr
    partial = broken.with_name("broken.safetensors.partial")
    measured = int(TensorFile.open(partial).metadata["tokens"])
    assert 0 < measured < wanted.json["tokens"]
    assert not broken.exists()
    ran = run(broken)
    assert f"going on behind {measured:,} tokens" in ran.err
    assert ran.json["tokens"] == wanted.json["tokens"]
    assert not partial.exists()
    assert whole.read_bytes() == broken.read_bytes()


class StoppedError(Exception):
    """Ends a run as a kill would."""


def break_off(collab, monkeypatch: pytest.MonkeyPatch, *said: object) -> None:
    """A run that ends behind its first checkpoint."""

    def save(self: Checkpoint, *args: Any) -> None:
        kept(self, *args)
        raise StoppedError

    kept = Checkpoint.save
    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(Checkpoint, "save", save)
        collab(*said)


def test_a_broken_off_run_of_something_else_is_left_alone(
    collab, model_folder: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another length, text or end is refused by name, and the checkpoint stays as it was."""
    out = tmp_path / "C0.safetensors"
    break_off(collab, monkeypatch, *command(model_folder, text, out))
    partial = out.with_name("C0.safetensors.partial")
    before = partial.read_bytes()
    ran = collab(*command(model_folder, text, out, "--length", 9))
    assert ran.code == ExitCode.MISMATCH
    assert "another length" in ran.err
    ran = collab(*command(model_folder, text, out, "--samples", 2))
    assert (ran.code, "stopping rule" in ran.err) == (ExitCode.MISMATCH, True)
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
    assert (said.model_dtype, said.sums_dtype, said.batch_tokens) == ("float32", "float64", 128)
    assert said.max_length is not None


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
