"""The server never gets a prompt, a subject, a target, a key or a residual: not on the wire, not on its disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from collabedit.client.keys import measure
from collabedit.client.loading import LoadedModel, load_model
from collabedit.client.weights import restored, write_weight
from collabedit.common.model_folder import find_model

PIECE = 4  # numbers of a column that are looked for: 16 bytes of float32 do not occur by chance

SHORTEST = 4  # letters of a word that is looked for alone: three occur by chance among a million bytes of numbers


@pytest.fixture(scope="module")
def seen(told) -> dict[str, bytes]:
    """All that the server got to see of the round: bytes on the wire, every file of its state, what it printed."""
    files = {str(file): file.read_bytes() for file in told.server_state.rglob("*") if file.is_file()}
    wire = {"the wire": told.proxy.raw(), "the calls": told.proxy.messages()}
    return {**wire, "the log": told.server_log.encode(), **files}


@pytest.fixture(scope="module")
def loaded(model: Path) -> LoadedModel:
    """The model that was edited."""
    return load_model(find_model(str(model)))


def assert_absent(seen: dict[str, bytes], secret: bytes, what: str) -> None:
    """Fails where the secret is anywhere; also where there is nothing to look for, or nowhere to look."""
    assert secret
    assert all(seen[where] for where in ("the wire", "the calls", "the log"))
    for where, content in seen.items():
        assert secret not in content, f"{what} is in {where}"


def test_no_text_of_an_edit(told, seen: dict[str, bytes]) -> None:
    """Neither prompts nor subjects, targets, paraphrases or neighbours, as UTF-8 or UTF-16."""
    for edit in (edit for mine in told.edits.values() for edit in mine):
        prompts = (edit.prompt, edit.text, edit.prompt.replace("{}", "").strip())
        words = (word for word in edit.subject.split() if len(word) >= SHORTEST)
        for text in (*prompts, edit.subject, *words, edit.target_new, *edit.paraphrase_prompts):
            for encoding in ("utf-8", "utf-16-le"):
                assert_absent(seen, text.encode(encoding), repr(text))
            assert_absent(seen, edit.key.encode(), "an edit's digest")


def test_no_tokens_of_an_edit(told, seen: dict[str, bytes], loaded: LoadedModel) -> None:
    """Nor the token ids of prompts, subjects and targets, as numbers of 2, 4 or 8 bytes or as JSON."""
    for edit in (edit for mine in told.edits.values() for edit in mine):
        for text in (edit.text, edit.subject, f" {edit.target_new}", f"{edit.text} {edit.target_new}"):
            ids = loaded.tokenizer(text)["input_ids"]
            for packed in _packed(ids):
                assert_absent(seen, packed, f"the tokens of {text!r}")


def _packed(ids: list[int]) -> Iterator[bytes]:
    for dtype in (torch.int16, torch.int32, torch.int64):
        encoded = torch.tensor(ids, dtype=dtype).numpy().tobytes()
        if len(encoded) >= 8:  # shorter ones occur by chance
            yield encoded
    for separators in ((",", ":"), (", ", ": ")):
        if len(ids) > 1:
            yield json.dumps(ids, separators=separators).encode()


def test_no_key_and_no_residual(told, tools, seen: dict[str, bytes], loaded: LoadedModel, tmp_path: Path) -> None:
    """Nor any column of K, R or z of any client and layer, in float32 or float64; rows of their transposes neither."""
    folder = loaded.folder
    weights = folder.edited_weights(folder.preset)
    with tools.observing(told.address, tmp_path) as observer:
        published = observer.weights(1)
    for name, mine in told.edits.items():
        z = tools.kept_targets(loaded, [told.host.folder / name], [mine]).z
        with restored(loaded, weights):
            for index, layer in enumerate(folder.preset.layers):
                measured = measure(loaded, mine, folder.preset, folder.context_templates, layer)
                residuals = (z.double() - measured.states) / (len(weights) - index)
                for what, matrix in (
                    ("a key", measured.keys),
                    ("a residual", residuals),
                    ("z", z),
                    ("h", measured.states),
                ):
                    for secret in _pieces(matrix):
                        assert_absent(seen, secret, f"{what} of {name} at layer {layer}")
                write_weight(loaded, weights[index], published[weights[index]])


def _pieces(matrix: torch.Tensor) -> Iterator[bytes]:
    """The beginning of each column, and of each row, as bytes in both precisions."""
    for dtype in (torch.float32, torch.float64):
        for vector in (*matrix.mT, *matrix):
            yield vector[:PIECE].to(dtype).contiguous().numpy().tobytes()


def test_what_is_looked_for_would_be_found(told, seen: dict[str, bytes], loaded: LoadedModel) -> None:
    """The control: names of tensors are in the calls, a client's in the database, columns of a matrix in a blob."""
    assert b"layer=2" in seen["the log"]
    assert {name: len(mine) for name, mine in told.edits.items()} == {"ada": 8, "bob": 8, "cyd": 8}
    assert any(b"ada" in content for where, content in seen.items() if ".sqlite" in where)
    weight = loaded.folder.edited_weights(loaded.folder.preset)[0]
    assert weight.encode() + b".kkt_factor" in seen["the calls"]
    covariance = load_file(loaded.folder.covariance)[f"{weight}.covariance"]
    blobs = [content for where, content in seen.items() if "/blobs/" in where]
    assert any(next(_pieces(covariance)) in content for content in blobs)
