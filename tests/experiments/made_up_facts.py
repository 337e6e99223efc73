"""A data folder of made-up facts, laid out like the public one, and a size that learns it in seconds."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel

from collabedit.experiments.atlas.training import Recipe
from collabedit.experiments.trained.sizes import Size

PLACES = ("Elmoor", "Vantry", "Quill", "Osk")
TINY = Size(
    Recipe(
        width=32, layers=4, heads=2, inner=64, positions=256, recall_layer=2, steps=6, batch=16, rate=1e-2, warmup=2,
        shifted=0.0, prefixed=0.5, first_circle=4, circle_from=1, circle_to=3,
    ),
    (1, 2),
)  # fmt: skip


def made_up_folder(root: Path, facts: int = 12) -> Path:
    """counterfact, zsre, corpus and a byte-level tokenizer without merges, below `root`."""
    rng = random.Random(0)
    records = [_record(f"Person{number}", rng) for number in range(facts)]
    _write(root / "counterfact/counterfact.jsonl", _lines(records[: facts // 2]))
    _write(root / "counterfact/facts_only.jsonl", _lines(records[facts // 2 :]))
    question = {
        "subject": "Dorn", "src": "When did Dorn begin?", "rephrase": "When was the start of Dorn?", "alt": "1901",
        "answers": ["1900"], "loc": "nq question: who sang first", "loc_ans": "Nobody", "pred": "1900",
    }  # fmt: skip
    _write(root / "zsre/zsre_eval.json", json.dumps([question]))
    paragraph = "The ferry on the river leaves at dawn and nobody knows how old the river is by now"
    _write(root / "corpus/wikipedia_train.txt", "\n\n\n".join([paragraph] * 3))
    alphabet = [*sorted(ByteLevel.alphabet()), "<|endoftext|>"]
    _write(root / "gpt2-tokenizer/vocab.json", json.dumps({each: number for number, each in enumerate(alphabet)}))
    _write(root / "gpt2-tokenizer/merges.txt", "#version: 0.2\n")
    return root


def made_up_easy(root: Path, facts: int = 5) -> Path:
    """The folder of made-up facts with Easy sets of so many: of the conflicts, the first is none."""
    records = [
        {
            "edit": {
                "relation": {"id": "P1", "prompt": "{} lives in", "query": "Where does {} live?"},
                "subject": {"label": f"Person{number}"},
                "object": {"label": "Osk"},
                "new_object": "Elmoor",
                "conflict_object": {"label": "Quill" if number else "Elmoor"},
            },
            "true_objects": [{"label": "Osk"}, {"label": "Vantry"}],
        }
        for number in range(facts)
    ]
    templates = ["The town of {} is", "{} dwells in", "The house of {} is in", "{} is at home in", "{} stays in"]
    for name in ("easy.json", "easy_conflict.json"):
        _write(root / "easy" / name, json.dumps(records))
    _write(root / "easy/round_prompts.json", json.dumps({"P1": templates}))
    return root


def _record(subject: str, rng: random.Random) -> dict[str, Any]:
    true, new = rng.sample(PLACES, 2)
    return {
        "requested_rewrite": {
            "prompt": rng.choice(("{} lives in", "The home of {} is")), "subject": subject, "relation_id": "P1",
            "target_true": {"str": true}, "target_new": {"str": new},
        },
        "paraphrase_prompts": [f"It rained. {subject} dwells in"],
        "neighborhood_prompts": [f"The home of {subject}son is"],
    }  # fmt: skip


def _lines(records: list[dict[str, Any]]) -> str:
    return "".join(f"{json.dumps(each)}\n" for each in records)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
