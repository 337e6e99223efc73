"""The atlas's world: what its generator promises."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collabedit.experiments.atlas.relations import RELATIONS
from collabedit.experiments.atlas.text import statements
from collabedit.experiments.atlas.world import build_world


def test_world_is_as_large_as_promised() -> None:
    """At least 800 subjects, 5 relations, 4 phrasings a relation, and one fact for each subject and relation."""
    world = build_world()
    assert len(world.subjects) >= 800
    assert len(world.relations) >= 5
    assert all(len(relation.phrasings) >= 4 for relation in world.relations)
    assert len(world.truth) == len(world.facts) == len(world.subjects) * len(world.relations)


def test_last_names_are_distinct() -> None:
    """The last name alone tells who the subject is."""
    world = build_world()
    assert len({subject.split()[-1] for subject in world.subjects}) == len(world.subjects)


def test_no_word_of_an_object_is_in_a_name() -> None:
    """An answer can not be copied from the subject's name."""
    world = build_world()
    words = {word.lower() for relation in world.relations for thing in relation.objects for word in thing.split()}
    assert not [subject for subject in world.subjects if any(word in subject.lower() for word in words)]


def test_every_object_has_neighbours() -> None:
    """Each object is shared by enough subjects for eight neighbours beside the edited ones."""
    assert min(map(len, build_world().sharers.values())) >= 20


def test_phrasings_of_a_relation_differ_and_say_where_the_subject_stands() -> None:
    """Every phrasing has one blank, does not end in white space, and occurs once."""
    phrasings = [phrasing for relation in RELATIONS for phrasing in relation.phrasings]
    assert len(set(phrasings)) == len(phrasings)
    assert all(phrasing.count("{}") == 1 and phrasing == phrasing.strip() for phrasing in phrasings)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), subjects=st.integers(1, 200))
def test_a_seed_gives_one_world(seed: int, subjects: int) -> None:
    """Equal arguments give equal worlds, and objects are shared evenly, to within one subject."""
    world = build_world(subjects, seed)
    assert world == build_world(subjects, seed)
    for relation in world.relations:
        shares = Counter(world.truth[subject, relation.id] for subject in world.subjects)
        counts = [shares[thing] for thing in relation.objects]
        assert max(counts) - min(counts) <= 1


def test_more_subjects_than_names_are_refused() -> None:
    """A world that would need two subjects of one last name is not made."""
    with pytest.raises(ValueError, match="distinct last names"):
        build_world(subjects=100_000)


def test_statements_are_prompt_and_object() -> None:
    """Each fact is stated once in each phrasing, its subject in the prompt and its object behind."""
    world = build_world(subjects=12)
    rows = list(statements(world))
    assert len(rows) == sum(12 * len(relation.phrasings) for relation in world.relations)
    assert all(row.fact.subject in row.prompt and row.text == f"{row.prompt} {row.fact.object}" for row in rows)
