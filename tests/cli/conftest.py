"""A tiny GPT-2 as a folder with all that an edit needs, and the command as a user runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from collabedit.common.command import entry_point

SENTENCES = (
    "The mother tongue of Danielle Darrieux is French, and that of Leo Tolstoy is Russian.",
    "Toko Yasuda plays the guitar. Autonomous University of Madrid is located in Spain.",
    "The capital of Norway is Oslo; the capital of Sweden is Stockholm.",
    "Because the river is long, I walked with you. Therefore you and I sang.",
)
LAYERS = (1, 2)
# MEMIT's published file for GPT2-XL, with its layers' numbers and step count made to fit the tiny model.
MEMIT_JSON = {
    "layers": list(LAYERS),
    "clamp_norm_factor": 0.75,
    "layer_selection": "all",
    "fact_token": "subject_last",
    "v_num_grad_steps": 4,
    "v_lr": 0.5,
    "v_loss_layer": 3,
    "v_weight_decay": 0.5,
    "kl_factor": 0.0625,
    "mom2_adjustment": True,
    "mom2_update_weight": 20000,
    "rewrite_module_tmp": "transformer.h.{}.mlp.c_proj",
    "layer_module_tmp": "transformer.h.{}",
    "mlp_module_tmp": "transformer.h.{}.mlp",
    "attn_module_tmp": "transformer.h.{}.attn",
    "ln_f_module": "transformer.ln_f",
    "lm_head_module": "transformer.wte",
    "mom2_dataset": "wikipedia",
    "mom2_n_samples": 100000,
    "mom2_dtype": "float32",
}
TEMPLATES = [["{}"], ["The river is long. {}", "I walked with you. {}"]]
FACTS = (
    ("The mother tongue of {} is", "Danielle Darrieux", "Russian", "French"),
    ("{} plays the", "Toko Yasuda", "river", "guitar"),
    ("The capital of {} is", "Norway", "Stockholm", "Oslo"),
    ("{} is located in", "Autonomous University of Madrid", "Norway", "Spain"),
)


def record(number: int, fact: tuple[str, str, str, str]) -> dict[str, Any]:
    """A CounterFact record."""
    prompt, subject, new, true = fact
    return {
        "case_id": number,
        "requested_rewrite": {
            "prompt": prompt, "relation_id": "P1", "subject": subject,
            "target_new": {"str": new, "id": "Q1"}, "target_true": {"str": true, "id": "Q2"},
        },
        "paraphrase_prompts": [f"It is said that {prompt.format(subject)}"],
        "neighborhood_prompts": ["The capital of Sweden is"],
    }  # fmt: skip


def write_lines(path: Path, records: list[dict[str, Any]]) -> Path:
    """JSON lines."""
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    return path


def make_folder(folder: Path, *, seed: int = 0, sharded: bool = False) -> Path:
    """A random GPT-2 of width 32 and four blocks, with hparams.json, templates and a covariance of its own."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(SENTENCES * 3, vocab_size=400, min_frequency=2, special_tokens=["<|endoftext|>"])
    PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="<|endoftext|>").save_pretrained(folder)
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=400, n_positions=64, n_embd=32, n_layer=4, n_head=4, initializer_range=0.1,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder, max_shard_size="60KB" if sharded else "5GB")
    (folder / "hparams.json").write_text(json.dumps(MEMIT_JSON))
    (folder / "context_templates.json").write_text(json.dumps(TEMPLATES))
    write_c0(folder / "covariance.safetensors")
    return folder


def write_c0(path: Path, **metadata: str) -> Path:
    """A positive definite C0 of condition number 1e3 for each edited weight, as another programme would write it."""
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(5)
    means = {}
    for layer in LAYERS:
        basis, _ = torch.linalg.qr(torch.randn(128, 128, dtype=torch.float64, generator=generator))
        spectrum = torch.logspace(-6, -3, 128, dtype=torch.float64)
        means[f"transformer.h.{layer}.mlp.c_proj.weight.covariance"] = basis @ torch.diag(spectrum) @ basis.T
    save_file(means, path, metadata=metadata or None)
    return path


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as one JSON object."""
        return json.loads(self.out)


@pytest.fixture
def collab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs `collab …` in this process through its entry point."""
    from collabedit.cli.main import collab as group

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr("sys.argv", ["collab", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            entry_point(group)()
        except SystemExit as ended:
            code = int(ended.code or 0)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's folder."""
    return make_folder(tmp_path_factory.mktemp("cli") / "tiny")


@pytest.fixture(scope="session")
def records() -> list[dict[str, Any]]:
    """Four CounterFact records."""
    return [record(number, fact) for number, fact in enumerate(FACTS)]


@pytest.fixture
def edits_file(tmp_path: Path, records: list[dict[str, Any]]) -> Path:
    """All four records as JSON lines."""
    return write_lines(tmp_path / "mine.jsonl", records)


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The makers above and their constants, for tests that need other folders and files."""
    return SimpleNamespace(
        make_folder=make_folder, write_c0=write_c0, write_lines=write_lines, record=record,
        memit=MEMIT_JSON, templates=TEMPLATES, facts=FACTS, layers=LAYERS,
        weights=tuple(f"transformer.h.{layer}.mlp.c_proj.weight" for layer in LAYERS),
    )  # fmt: skip
