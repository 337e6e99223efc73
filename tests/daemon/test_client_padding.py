"""Public facts that fill a small batch up."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collabedit.client.contradictions import about
from collabedit.client.padding import pads, read_padding
from collabedit.common.edits import Edit
from collabedit.common.errors import BadEditsError

NAMES = ("Anna", "Boris", "Carla", "Dora", "Emil", "Fanny")
PROMPTS = ("{} speaks", "{} lives in")


def fact(subject: str, prompt: str = PROMPTS[0], target: str = "French") -> Edit:
    """A fact, or an edit."""
    return Edit(prompt=prompt, subject=subject, target_new=target)


def all_right(facts: list[Edit]) -> list[bool]:
    """A model that knows everything."""
    return [True] * len(facts)


facts_ = st.lists(st.builds(fact, st.sampled_from(NAMES), st.sampled_from(PROMPTS)), max_size=12)


@given(facts=facts_, batch=facts_, ours=facts_, least=st.integers(0, 12), known=st.sets(st.sampled_from(NAMES)))
def test_pads_fill_a_batch_up_with_what_is_known(facts, batch, ours, least, known) -> None:
    """Pads are facts that the model answers, of subjects apart from the batch's and from each other, and no more of
    them than are missing; where fewer come back, none is left.
    """

    def right(some: list[Edit]) -> list[bool]:
        return [each.subject in known for each in some]

    chosen = pads(facts, batch, least, right, ours=ours)
    subjects = [each.subject for each in chosen]
    assert len(chosen) <= max(0, least - len(batch))
    assert len(set(subjects)) == len(subjects)
    assert set(subjects) <= known - {each.subject for each in batch}
    assert not {about(each) for each in chosen} & {about(each) for each in ours}
    assert all(each in facts for each in chosen)
    assert pads(facts, batch, least, right, ours=ours) == chosen
    if len(chosen) < least - len(batch):
        free = {f.subject for f in facts if about(f) not in {about(each) for each in ours}}
        assert set(subjects) == (free & known) - {each.subject for each in batch}


def test_pads_come_in_the_files_order() -> None:
    """The first facts that can be taken are, whatever the batch."""
    facts = [fact(each) for each in NAMES]
    assert [each.subject for each in pads(facts, [fact("Boris")], 3, all_right)] == ["Anna", "Carla"]


def test_no_more_facts_are_asked_than_needed() -> None:
    """A file of a million facts costs no more than one of a few."""
    asked: list[str] = []

    def right(some: list[Edit]) -> list[bool]:
        asked.extend(each.subject for each in some)
        return all_right(some)

    pads([fact(each) for each in NAMES], [fact("Anna")], 3, right)
    assert asked == ["Boris", "Carla"]
    assert pads([fact("Anna")], [fact(each) for each in NAMES], 3, right) == []
    assert len(asked) == 2


def test_padding_is_read_as_facts(tmp_path: Path) -> None:
    """A fact's object is its true one; bad lines are named, or skipped where that is wanted; no file has none."""
    file = tmp_path / "facts.jsonl"
    good = '{"prompt": "{} speaks", "subject": "Anna", "attribute": "French"}\n'
    file.write_text(good + "{}\n")
    with pytest.raises(BadEditsError, match=r"facts\.jsonl:2"):
        read_padding(file)
    assert [each.target_new for each in read_padding(file, skip_invalid=True)] == ["French"]
    assert read_padding(None) == ()
