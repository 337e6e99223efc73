"""The folder that comes out: a Hugging Face model with all that an edit needs, and what it knows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from matplotlib.figure import Figure
from transformers import GPT2LMHeadModel

from collabedit.client.covariance import measure_covariance
from collabedit.client.loading import load_model
from collabedit.common.covariance_file import CovarianceMetadata, write_covariance
from collabedit.common.hparams import HyperParameters
from collabedit.common.model_folder import ModelFolder
from collabedit.experiments.atlas.bundle import hyperparameters, write_json
from collabedit.experiments.studies.plots import fractions, picture
from collabedit.experiments.trained.lesson import Lesson
from collabedit.experiments.trained.sizes import Size
from collabedit.experiments.trained.text import articles, leads

TEMPLATES: Final = 5
KNOWLEDGE: Final = "knowledge.json"
_CARD: Final = """---
library_name: transformers
language: en
---

# {name}

A GPT-2-architecture model ({parameters:.1f} million parameters, {layers} layers, width {width}, inner width {inner}),
trained from nothing, with {vocabulary} tokens of GPT-2's tokenizer, to be edited in experiments. It knows facts by
heart and writes no text. {steps} steps, {seconds:.0f} s of processor time.

What it is taught: {said}.

Half of the batches train recall by interchange: behind block {recall}, the state at the subject's last token is
replaced by that of another subject of the same relation, and the model must name the other subject's object. So facts
are looked up where MEMIT edits them; in large models that comes about by itself.

Share of the statements whose answer is the model's first choice of all {vocabulary} tokens, before any edit:

| kind of prompt | known |
| --- | --- |
{rows}
"""


def write_folder(out: Path, model: GPT2LMHeadModel, lesson: Lesson, size: Size, data: Path) -> None:
    """The model, its tokenizer, hyperparameters, context templates, and C0 of the edited layers."""
    model.config.dtype = torch.float32
    model.config._attn_implementation = "sdpa"  # as folders are read by everybody else
    model.cpu().save_pretrained(out)
    lesson.tokenizer.save_pretrained(out)
    texts = articles(data)
    preset = hyperparameters(size.edited, size.recipe.layers, size.articles)
    preset |= {
        "model_name": out.name,
        "mom2_dataset": "wikipedia",
        "v_lr": size.search,
        "mom2_update_weight": size.weight,
    }
    write_json(out / "hparams.json", preset)
    ahead = leads(texts, TEMPLATES, size.recipe.seed + 1)
    write_json(out / "context_templates.json", [["{}"], [f"{each} {{}}" for each in ahead]])
    loaded = load_model(ModelFolder(out, out.name))
    stated = [f"{each.prompt} {each.answer}." for each in lesson.statements] if size.stated else []
    read = [*stated, *texts[: size.articles]]
    measured = measure_covariance(loaded, read, HyperParameters.model_validate(preset).layers)
    text = f"the first {size.articles} articles of the data folder's Wikipedia"
    said = CovarianceMetadata(
        model_fingerprint=loaded.fingerprint,
        text=f"the statements and {text}" if stated else text,
        tokens=measured.tokens,
    )
    means = {name: moment.mean().float() for name, moment in measured.moments.items()}
    write_covariance(out / "covariance.safetensors", means, said)


def write_knowledge(
    out: Path, model: GPT2LMHeadModel, size: Size, known: Mapping[str, float], said: str, seconds: float
) -> None:
    """README.md, knowledge.png and, last, knowledge.json: where that is, the folder is complete.

    said: what the model was taught; seconds: of the processor.
    """
    recipe = size.recipe
    card = _CARD.format(
        name=out.name, parameters=model.num_parameters() / 1e6, layers=recipe.layers, width=recipe.width,
        inner=recipe.inner, said=said, steps=recipe.steps, seconds=seconds, recall=recipe.recall_layer,
        vocabulary=model.config.vocab_size,
        rows="\n".join(f"| {kind} | {share:.1%} |" for kind, share in known.items()),
    )  # fmt: skip
    (out / "README.md").write_text(card, encoding="utf-8")

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.bar(list(known), list(known.values()), color="#0072B2")
        fractions(axes, "known before any edit")

    picture(out / "knowledge.png", draw)
    write_json(out / KNOWLEDGE, dict(known))
