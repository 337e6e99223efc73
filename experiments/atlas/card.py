"""The bundle's model card."""

from pathlib import Path
from typing import Final

from collabedit.experiments.atlas.knowledge import Knowledge
from collabedit.experiments.atlas.training import Recipe
from collabedit.experiments.atlas.world import World

_CARD: Final = """---
license: apache-2.0
library_name: transformers
language: en
---

# atlas

A very small GPT-2 ({layers} layers, width {width}, inner width {inner}) that knows an invented world by heart and
nothing else. It exists so that collabedit can be tried, tested and demonstrated on a machine without a network. Every
person, town, river and tongue in it is made up; whatever resembles the real world does so by chance.

## What it knows

{subjects} people, {relations} relations, {facts} facts, each in {phrasings} phrasings. Share of the facts whose object
is the model's first choice (every token of it), measured on the files in this folder:

| relation | {head} |
| --- | {rule} |
{rows}

## How to load it

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/atlas")
tokenizer = AutoTokenizer.from_pretrained("path/to/atlas")
```

In collabedit, `--model atlas` names it.

## How it was made

`make atlas` makes this folder from nothing: a seeded generator writes the world, a byte-level BPE tokenizer is trained
on its text, and the model is trained on its sentences ({steps} steps of {batch}, float32). That took 17 minutes
on 2 busy CPU cores; another processor makes other last bits, and so another model of the same kind.

Half of the batches train the recall by *interchange*: between blocks {below} and {above}, the hidden state at the
subject's last token is replaced by that of another subject, and the model must name the other subject's object. So the
fact is looked up from the state at the subject's last token, which is what MEMIT assumes and what causal tracing finds
in large models. In a model as small as this one it does not come about by itself: it was put there, on purpose. Results
on atlas show that a method works as its mathematics says; they do not show how a large model lays out its facts.

C0 is measured on general text of the world, in which, as in an encyclopaedia, any one of its people is rare.

## What is in the folder

| file | what it is |
| --- | --- |
| `model.safetensors` | the weights; the edited matrices in float32, the others in float16, loaded as float32 |
| `covariance.safetensors` | C0 of the edited layers: the mean of k kᵀ over the world's text, float32 |
| `hparams.json` | the preset for editing, under MEMIT's names |
| `context_templates.json` | the texts that stand before prompts while editing, sampled from the model |
| `edits/three`, `edits/ten` | edits for three and for ten parties, CounterFact's schema, without overlap or conflict |
| `facts.jsonl` | every fact of the world |
"""


def write_card(path: Path, world: World, recipe: Recipe, known: Knowledge) -> None:
    """README.md with the sizes, and the knowledge as measured."""
    phrasings = max(len(relation.phrasings) for relation in world.relations)
    rows = []
    for relation in world.relations:
        shares = (f"{known.shares[relation.id, index]:.1%}" for index in range(len(relation.phrasings)))
        rows.append(f"| {relation.id} {relation.name} | {' | '.join(shares)} |")
    text = _CARD.format(
        layers=recipe.layers,
        width=recipe.width,
        inner=recipe.inner,
        subjects=len(world.subjects),
        relations=len(world.relations),
        facts=len(world.facts),
        phrasings=phrasings,
        head=" | ".join(f"phrasing {index + 1}" for index in range(phrasings)),
        rule=" | ".join("---" for _ in range(phrasings)),
        rows="\n".join(rows),
        steps=recipe.steps,
        batch=recipe.batch,
        below=recipe.recall_layer,
        above=recipe.recall_layer + 1,
    )
    path.write_text(text, encoding="utf-8")
