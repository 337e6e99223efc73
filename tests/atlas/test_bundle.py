"""The bundled model `atlas`: what the package ships."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import collabedit.common.models
from collabedit.common.covariance_file import CovarianceFile
from collabedit.common.fingerprint import model_fingerprint
from collabedit.common.model_folder import find_model
from collabedit.experiments.atlas.knowledge import measure
from collabedit.experiments.atlas.text import statements
from collabedit.experiments.atlas.world import World, build_world

FOLDER = Path(collabedit.common.models.__file__).parent / "atlas"
PARTIES = [pytest.param("three", 3, id="three"), pytest.param("ten", 10, id="ten")]


@cache
def loaded() -> tuple[Any, Any]:
    """Model and tokenizer, the way any Hugging Face folder is loaded."""
    model = AutoModelForCausalLM.from_pretrained(FOLDER, local_files_only=True)
    return model.eval(), AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)


@cache
def world() -> World:
    """The world that the bundle was made from."""
    return build_world()


def parties(name: str) -> list[list[dict[str, Any]]]:
    """The records of each party of one deal."""
    files = sorted((FOLDER / "edits" / name).glob("party-*.jsonl"))
    return [[json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] for file in files]


def test_bundle_is_small() -> None:
    """Everything together takes at most 16 MB."""
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) <= 16_000_000


def test_model_is_an_ordinary_folder() -> None:
    """AutoModel and AutoTokenizer take it; weights are float32 once loaded, and the tokenizer adds no token."""
    model, tokenizer = loaded()
    assert model.config.model_type == "gpt2"
    assert model.dtype == torch.float32
    assert tokenizer.is_fast
    assert len(tokenizer) == model.config.vocab_size
    text = "I met Mira on the road, naïvely – 道."
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_every_phrasing_of_every_fact_is_known() -> None:
    """At least 95 % of the facts are known, in each phrasing: of every fourth fact; the model card has them all."""
    known = measure(*loaded(), [each for number, each in enumerate(statements(world())) if number // 5 % 4 == 0])
    assert known.worst >= 0.95, known.shares


def test_facts_are_known_after_other_text() -> None:
    """A sentence before the prompt, as in CounterFact's paraphrases, takes no knowledge away."""
    known = measure(*loaded(), list(statements(world()))[::37], "You can hear the lute from the harbour. ")
    assert known.worst >= 0.95, known.shares


def test_facts_file_is_the_world() -> None:
    """facts.jsonl holds the generator's facts, in its order."""
    lines = (FOLDER / "facts.jsonl").read_text(encoding="utf-8").splitlines()
    facts = [(fact.subject, fact.relation_id, fact.object) for fact in world().facts]
    assert [tuple(json.loads(line).values()) for line in lines] == facts


def test_covariance_is_of_this_model_and_positive_definite() -> None:
    """C0 carries the model's fingerprint, covers the edited layers, and λ·C0 has a Cholesky factor in float64."""
    folder = find_model("atlas")
    preset, path = folder.preset, folder.covariance
    assert preset is not None and path is not None
    file = CovarianceFile.open(path)
    assert file.metadata.model_fingerprint == model_fingerprint(folder)
    for weight in folder.edited_weights(preset):
        torch.linalg.cholesky(preset.mom2_update_weight * file.mean(weight))


def test_preset_edits_several_layers() -> None:
    """Layer-sync has something to do: at least two layers are edited, the loss is read at the last."""
    preset = find_model("atlas").preset
    assert preset is not None
    assert len(preset.layers) >= 2
    assert preset.v_loss_layer == loaded()[0].config.n_layer - 1


def test_context_templates_are_the_bare_prompt_and_five_texts() -> None:
    """Each template has one blank, at its end."""
    groups = json.loads((FOLDER / "context_templates.json").read_text(encoding="utf-8"))
    assert groups[0] == ["{}"]
    assert len(groups[1]) == 5
    assert all(text.endswith(". {}") and text.count("{") == 1 for text in groups[1])


@pytest.mark.parametrize(("name", "count"), PARTIES)
def test_parties_do_not_overlap(name: str, count: int) -> None:
    """Each deal has its number of parties, each brings at least 16 edits, and no subject is edited twice."""
    dealt = parties(name)
    subjects = [record["requested_rewrite"]["subject"] for records in dealt for record in records]
    assert len(dealt) == count
    assert all(len(records) >= 16 for records in dealt)
    assert len(set(subjects)) == len(subjects)


@pytest.mark.parametrize(("name", "count"), PARTIES)
def test_records_change_a_true_fact(name: str, count: int) -> None:
    """The old object is the world's, the new one is another of the same relation, and prompts name the subject."""
    for record in (record for records in parties(name) for record in records):
        rewrite = record["requested_rewrite"]
        subject, relation = rewrite["subject"], world().relation_by_id[rewrite["relation_id"]]
        assert rewrite["prompt"] in relation.phrasings
        assert world().truth[subject, relation.id] == rewrite["target_true"]["str"] != rewrite["target_new"]["str"]
        assert rewrite["target_new"]["str"] in relation.objects
        assert len(record["paraphrase_prompts"]) >= 2
        assert all(subject in text for text in (*record["paraphrase_prompts"], *record["generation_prompts"]))


@pytest.mark.parametrize(("name", "count"), PARTIES)
def test_neighbours_share_the_true_object_and_are_not_edited(name: str, count: int) -> None:
    """Five neighbours at least, of whom the old object is true, in prompts of the same relation."""
    records = [record for each in parties(name) for record in each]
    edited = {record["requested_rewrite"]["subject"] for record in records}
    for record in records:
        rewrite = record["requested_rewrite"]
        relation = world().relation_by_id[rewrite["relation_id"]]
        sharers = world().sharers[relation.id, rewrite["target_true"]["str"]]
        about = {p.replace("{}", s) for p in relation.phrasings for s in sharers if s not in edited}
        assert len(record["neighborhood_prompts"]) >= 5
        assert set(record["neighborhood_prompts"]) <= about
