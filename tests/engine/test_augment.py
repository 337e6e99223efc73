"""What the winner of a conflict submits again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from collabedit.client.augment import MOST, Form, augmented
from collabedit.common.blinding import FederationKey
from collabedit.common.edits import Edit

KEY = FederationKey(1, bytes(32))
EDIT = Edit(
    id="7",
    prompt="{} has use(s), such as",
    subject="fpart",
    target_new="data migration",
    target_true="data synchronization",
    relation_id="P366",
    paraphrase_prompts=("What use does fpart have?", "fpart, oh fpart, serves", "It serves", "fpart {} serves"),
    neighborhood_prompts=("rsync has use(s), such as",),
    related_targets=("data synchronization", "data migration", "data synchronization", "file management"),
)


def test_the_paraphrases_that_name_the_subject_once_are_edits_too() -> None:
    """They have the edit's subject, relation and objects, and no prompts to be scored by."""
    first, second = augmented(EDIT)
    assert first == EDIT
    assert second == Edit(
        id="7-paraphrase-1",
        prompt="What use does {} have?",
        subject="fpart",
        target_new="data migration",
        target_true="data synchronization",
        relation_id="P366",
    )


def test_alone_is_the_edit() -> None:
    """Nothing is added."""
    assert augmented(EDIT, "alone") == (EDIT,)


def test_the_labels_stand_behind_the_target_in_one_text() -> None:
    """Each further true object once, the target not again; without further objects there is nothing to add."""
    labels = augmented(EDIT, "multi-label")[-1]
    assert (labels.id, labels.prompt) == ("7-labels", EDIT.prompt)
    assert labels.target_new == "data migration, data synchronization, file management"
    bare = EDIT.model_copy(update={"related_targets": ("data migration",)})
    assert augmented(bare, "multi-label") == augmented(bare)


@given(
    st.lists(st.text("ab {}fpart.", max_size=12) | st.sampled_from(EDIT.paraphrase_prompts), max_size=8),
    st.sampled_from(("alone", "paraphrases", "multi-label")),
    st.integers(0, 6),
)
def test_every_part_is_an_edit_of_the_same_fact(prompts: list[str], form: Form, most: int) -> None:
    """Whatever the paraphrases are: edits, no two equal, few; all but the labels with the edit's blinded names."""
    edit = EDIT.model_copy(update={"paraphrase_prompts": tuple(prompts)})
    parts = augmented(edit, form, most)
    assert parts[0] == edit
    assert len({part.key for part in parts}) == len(parts) <= 2 + most
    assert all(part.text in prompts for part in parts[1:] if "paraphrase" in part.id)
    assert {KEY.claim(part) for part in parts if "labels" not in part.id} == {KEY.claim(edit)}


def test_an_edit_with_many_paraphrases_brings_the_first() -> None:
    """Each costs a search for z."""
    many = EDIT.model_copy(update={"paraphrase_prompts": tuple(f"{n}. fpart is for" for n in range(20))})
    assert [part.prompt for part in augmented(many)[1:]] == [f"{n}. {{}} is for" for n in range(MOST)]
