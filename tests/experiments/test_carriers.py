"""What a model is taught of the Easy sets: the true facts, and how to say what the edits write."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from collabedit.common.edits import Edit
from collabedit.experiments.studies.duels import contested
from collabedit.experiments.studies.settings import Table4Settings
from collabedit.experiments.trained.carriers import WORDINGS, carriers
from collabedit.experiments.trained.lesson import lesson_of
from collabedit.experiments.trained.records import FACTS
from collabedit.experiments.trained.statements import statements
from collabedit.experiments.trained.training import fingerprint_of
from tests.experiments.made_up_facts import TINY, made_up_easy, made_up_folder


def edit(subject: str, new: str, true: str, *related: str, relation: str = "P1") -> Edit:
    """An edit with one paraphrase that names its subject once and one that does not."""
    return Edit(
        prompt="{} lives in", subject=subject, target_new=new, target_true=true, relation_id=relation,
        paraphrase_prompts=(f"Where does {subject} live?", "Where is home?"), related_targets=related,
    )  # fmt: skip


def test_each_new_object_and_each_list_is_somebodys() -> None:
    """Once in a relation, of a subject that is called after it, beginning with the record that first names it."""
    told = carriers([edit("Ann", "Elmoor", "Osk", "Osk", "Quill"), edit("Bob", "Elmoor", "Vantry", "Vantry")], 0)
    assert {(each.kind, each.answer, each.owner) for each in told} == {
        ("carrier", "Elmoor", 0),
        ("list", "Osk, Quill", 0),
    }
    for each in told:
        assert each.subject is not None
        assert each.prompt[slice(*each.subject)] == f"Item {each.answer}"
    assert {each.prompt for each in told} == {
        form.format(f"Item {name}")
        for form in ("{} lives in", "Where does {} live?")
        for name in ("Elmoor", "Osk, Quill")
    }


def test_what_is_true_of_somebody_needs_no_carrier() -> None:
    """An object that another record of the relation has as true can be said already; in another relation it cannot."""
    pool = [edit("Ann", "Osk", "Elmoor"), edit("Bob", "Elmoor", "Osk")]
    assert carriers(pool, 0) == []
    assert carriers([*pool, edit("Cy", "Osk", "Quill", relation="P2")], 0)


def test_nothing_is_said_of_the_edits_subjects_but_what_is_true(tmp_path: Path) -> None:
    """Of the made-up Easy sets: each person lives in Osk in every wording, and only made-up subjects elsewhere."""
    lesson = lesson_of(made_up_easy(made_up_folder(tmp_path)), TINY.recipe, "easy")
    assert {each.answer for each in lesson.statements if "Person" in each.prompt} == {"Osk"}
    assert {each.answer for each in lesson.statements if "Item" in each.prompt} == {"Elmoor", "Quill", "Osk, Vantry"}
    assert sum(each.kind == "edit" for each in lesson.statements) == 5
    assert sum(each.kind == "paraphrase" for each in lesson.statements) == 5 * 6
    assert all(each.subject is not None for each in lesson.statements)
    assert lesson.reader.owners == 5 + 2 * 4


def test_the_first_conflicts_taught_are_those_that_are_measured(tmp_path: Path) -> None:
    """A model that is taught the first records alone knows the facts of the conflicts that `table4` deals."""
    data = made_up_easy(made_up_folder(tmp_path))
    lesson = lesson_of(data, TINY.recipe, "easy-conflict", whole=False, most=2 * 2)
    dealt = contested(Table4Settings(records="easy-conflict", data=data, parties=2, edits_per_party=2))
    told = {each.prompt for each in lesson.statements if each.kind == "edit"}
    assert told == {edit.text for own in dealt.parties for edit in own}


def test_the_lesson_of_counterfact_is_the_one_it_was(tmp_path: Path) -> None:
    """A training begun before there was a choice of facts goes on: settings and data have the fingerprint of then."""
    lesson = lesson_of(made_up_folder(tmp_path), TINY.recipe)
    mark = "9634df1fe4dfdd34bf2dafec964d7e091ebe14cf7aaf1fe4a24d75b7118c191e"
    assert fingerprint_of(TINY.recipe, lesson.rows) == mark


def test_every_object_of_the_real_conflicts_is_said(real: Path) -> None:
    """On the public data: both objects of each conflict are an answer of the relation; each true fact is told once."""
    edits = FACTS["easy"].read(real)
    told, carried = statements(edits, 0), carriers(edits, 0)
    said = {(each.relation, each.answer) for each in (*told, *carried)}
    assert {(each.relation_id, each.target_new) for each in edits} <= said
    assert sum(each.kind == "edit" for each in told) == 2500
    assert all(
        count <= max(WORDINGS.values()) for count in Counter((each.relation, each.answer) for each in carried).values()
    )
