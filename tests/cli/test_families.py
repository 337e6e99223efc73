"""The offline commands on models of other families than GPT-2, with nothing given that the commands can find out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file

from collabedit.common.model_folder import find_model

sys.path.append(str(Path(__file__).parents[1] / "engine"))  # the makers of tiny models

from families import make_family

WORDS = (
    "The", "river", "is", "long", "and", "I", "walked", "with", "you", "Toko", "plays", "guitar", "Oslo", "Norway",
    "Leo", "sang", "of", "Spain", "Because",
)  # fmt: skip
SUBJECTS = ("Danielle Darrieux", "Toko Yasuda", "Norway", "日本")


@pytest.mark.parametrize("name", ["llama 3, tied", "gemma3, sees", "gpt-neox, serial"])
def test_from_a_bare_folder_to_an_edited_one(collab, tmp_path: Path, name: str) -> None:
    """C0, edits, merge and export of a folder that brings nothing; what is exported scores as what was merged."""
    model, text, edits = make_family(name, tmp_path / "model").path, tmp_path / "text.txt", tmp_path / "mine.jsonl"
    shuffled = Random(0)
    text.write_text("\n".join(" ".join(shuffled.sample(WORDS, 12)) for _ in range(40)))
    fact = {"prompt": "The mother tongue of {} is", "target_new": "Russian", "target_true": "French"}
    edits.write_text("".join(json.dumps({**fact, "subject": subject}) + "\n" for subject in SUBJECTS))
    c0, mine, merged, out = (tmp_path / each for each in ("c0.safetensors", "mine.safetensors", "merged", "out"))
    steps = (
        ("covariance", "--model", model, "--text", text, "--out", c0),
        ("edit", "--model", model, "--edits", edits, "--covariance", c0, "--out", mine),
        ("merge", "--model", model, "--covariance", c0, "--out", merged, mine),
        ("export", "--model", model, "--weights", merged, "--out", out),
    )
    for step in steps:
        ran = collab(*step)
        assert ran.code == 0, ran.err
    changed = load_file(merged)
    for weight, tensor in changed.items():
        assert torch.equal(find_model(str(out)).weight(weight), tensor.float())
        assert not torch.equal(find_model(str(model)).weight(weight), tensor.float())
    scored = [
        {**collab("eval", "--records", edits, "--each", "--json", *which).json, "model": "", "weights": ""}
        for which in (("--model", model, "--weights", merged), ("--model", out))
    ]
    assert scored[0] == scored[1]
