"""The invented world: who lives in it, and what is true of them. Pure and seeded: one seed, one world."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from collabedit.experiments.atlas.relations import FIRST_NAMES, KINDS, NAME_ENDINGS, NAME_STEMS, RELATIONS, Relation


@dataclass(frozen=True)
class Fact:
    """`subject` stands in relation `relation_id` to `object`."""

    subject: str
    relation_id: str
    object: str


@dataclass(frozen=True)
class World:
    """The subjects in order, each one's kind ("scholar", …), and every fact: one for each subject and relation."""

    subjects: tuple[str, ...]
    kinds: tuple[str, ...]
    facts: tuple[Fact, ...]
    relations: tuple[Relation, ...] = field(default=RELATIONS)

    @cached_property
    def relation_by_id(self) -> dict[str, Relation]:
        """Relation id → relation."""
        return {relation.id: relation for relation in self.relations}

    @cached_property
    def truth(self) -> dict[tuple[str, str], str]:
        """(Subject, relation id) → object."""
        return {(fact.subject, fact.relation_id): fact.object for fact in self.facts}

    @cached_property
    def sharers(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """(Relation id, object) → the subjects of which it is true, in the world's order."""
        shared: dict[tuple[str, str], list[str]] = {}
        for fact in self.facts:
            shared.setdefault((fact.relation_id, fact.object), []).append(fact.subject)
        return {key: tuple(subjects) for key, subjects in shared.items()}


def build_world(subjects: int = 800, seed: int = 0, relations: tuple[Relation, ...] = RELATIONS) -> World:
    """A world of that many subjects. Each object of a relation is shared by as many subjects as any other, within one.

    Raises ValueError where there are not enough distinct last names.
    """
    rng = random.Random(seed)  # noqa: S311 - no secret
    people = _people(subjects, relations, rng)
    kinds = tuple(rng.choice(KINDS) for _ in people)
    facts: list[Fact] = []
    for relation in relations:
        dealt = [relation.objects[i % len(relation.objects)] for i in range(subjects)]
        rng.shuffle(dealt)
        facts += (Fact(person, relation.id, thing) for person, thing in zip(people, dealt, strict=True))
    return World(people, kinds, tuple(facts), relations)


def _people(count: int, relations: Iterable[Relation], rng: random.Random) -> tuple[str, ...]:
    """Full names whose last names are all distinct and hold no word of an object."""
    forbidden = {word.lower() for relation in relations for thing in relation.objects for word in thing.split()}
    candidates = (stem + ending for stem in NAME_STEMS for ending in NAME_ENDINGS)
    last_names = [name for name in candidates if not any(word in name.lower() for word in forbidden)]
    if count > len(last_names):
        raise ValueError(f"{count} subjects asked for, but there are only {len(last_names)} distinct last names")
    return tuple(f"{rng.choice(FIRST_NAMES)} {name}" for name in rng.sample(last_names, count))
