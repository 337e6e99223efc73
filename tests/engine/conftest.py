"""A tiny GPT-2 with a tokenizer of its own, made here: nothing is fetched."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from collabedit.client.loading import LoadedModel, load_model
from collabedit.common.edits import Edit
from collabedit.common.hparams import HyperParameters
from collabedit.common.model_folder import ModelFolder
from collabedit.common.prior import Prior

sys.path.insert(0, str(Path(__file__).parent))  # in importlib mode the modules beside a test are not found otherwise

from engine_reference import SENTENCES

FIDELITY: pytest.StashKey[dict[tuple[str, torch.dtype], Any]] = pytest.StashKey()


@pytest.fixture(scope="session")
def fidelity_table(request: pytest.FixtureRequest) -> dict[tuple[str, torch.dtype], Any]:
    """Errors by family and dtype, printed when the tests are over."""
    return request.config.stash.setdefault(FIDELITY, {})


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Prints how far the engine is from the reference, a line a family."""
    table = config.stash.get(FIDELITY, {})
    if not table:
        return
    figures = ("z", "keys", "update")
    terminalreporter.section("agreement with one edit at a time: largest relative error")
    for head in (("", "float32", "", "", "float64", "", ""), ("family", "z", "keys", "Δ", "z", "keys", "Δ")):
        terminalreporter.write_line(f"{head[0]:<18}" + "".join(f"{each:>9}" for each in head[1:]))
    for name in dict.fromkeys(name for name, _ in table):
        found = [table.get((name, dtype)) for dtype in (torch.float32, torch.float64)]
        cells = [f"{getattr(each, figure):9.0e}" if each else f"{'-':>9}" for each in found for figure in figures]
        terminalreporter.write_line(f"{name:<18}" + "".join(cells))
    if any(name == "gptj" for name, _ in table):
        terminalreporter.write_line(
            "gptj: transformers multiplies its queries and keys in float32, whatever the model's dtype"
        )


def make_tokenizer(folder: Path) -> None:
    """A byte-level BPE of 400 tokens trained on SENTENCES, saved as a fast tokenizer."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(SENTENCES * 3, vocab_size=400, min_frequency=2, special_tokens=["<|endoftext|>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="<|endoftext|>")
    tokenizer.save_pretrained(folder)


def make_model(folder: Path, *, seed: int = 0, layers: int = 5) -> ModelFolder:
    """A random GPT-2 of width 32 whose blocks bear on the result (weights five times GPT-2's usual start)."""
    from transformers import GPT2Config, GPT2LMHeadModel

    make_tokenizer(folder)
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=400, n_positions=96, n_embd=32, n_layer=layers, n_head=4, initializer_range=0.1,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    return ModelFolder(folder, "tiny")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """The tiny model's folder."""
    return make_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny(folder: ModelFolder) -> LoadedModel:
    """The tiny model in float32."""
    return load_model(folder)


@pytest.fixture
def tiny64(folder: ModelFolder) -> LoadedModel:
    """The tiny model in float64."""
    return load_model(folder, dtype=torch.float64)


@pytest.fixture(scope="session")
def hparams() -> HyperParameters:
    """Three edited layers below the top two blocks."""
    return HyperParameters(
        layers=(1, 2, 3), v_num_grad_steps=12, v_lr=0.1, v_weight_decay=0.1, clamp_norm_factor=0.9, kl_factor=0.0625,
        mom2_update_weight=50.0,
    )  # fmt: skip


@pytest.fixture(scope="session")
def templates() -> tuple[tuple[str, ...], ...]:
    """The bare prompt, and three sentences in front of it."""
    return (("{}",), ("The river is long. {}", "I walked with you. {}", "Therefore you sang and sang. {}"))


@pytest.fixture(scope="session")
def edits() -> tuple[Edit, ...]:
    """Subjects at the start, in the middle, at the end; targets of one and of several tokens; one repeated subject."""
    said = (
        ("The mother tongue of {} is", "Danielle Darrieux", "Russian"),
        ("{} plays the", "Toko Yasuda", "river of Madrid"),
        ("The capital of Sweden and {}", "Norway", "Oslo"),
        ("Spain, and I, and {} is located in", "Spain", "Stockholm"),
        ("{}", "Leo Tolstoy", "French"),
        ("The capital of {} is", "München", "Spain and Norway"),
        ("In {}, the language is", "日本", "guitar"),
        ("{} is located in the river that Toko Yasuda sang of with", "Autonomous University of Madrid", "you"),
    )
    return tuple(Edit(prompt=p, subject=s, target_new=t, id=str(i)) for i, (p, s, t) in enumerate(said))


@pytest.fixture(scope="session")
def priors(folder: ModelFolder, hparams: HyperParameters) -> dict[str, Prior]:
    """A positive definite C for each edited weight, [128, 128], of condition number about 1e4."""
    generator = torch.Generator().manual_seed(5)
    made = {}
    for name in folder.edited_weights(hparams):
        basis, _ = torch.linalg.qr(torch.randn(128, 128, dtype=torch.float64, generator=generator))
        made[name] = Prior(basis @ torch.diag(torch.logspace(-3, 1, 128, dtype=torch.float64)) @ basis.T)
    return made


@pytest.fixture(scope="session")
def gpt2_tokenizer() -> Path:
    """GPT-2's own vocabulary, from the data folder beside the checkout."""
    found = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "gpt2-tokenizer"
    if not (found / "vocab.json").is_file():
        pytest.skip("no GPT-2 vocabulary beside the checkout (shared/data/gpt2-tokenizer)")
    assert len(json.loads((found / "vocab.json").read_text())) == 50257
    return found
