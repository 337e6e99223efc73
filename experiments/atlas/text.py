"""The world as text: prompts, sentences that state facts, and sentences that state nothing in particular."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from collabedit.experiments.atlas.world import Fact, World

FILLERS: Final = (
    "The rain over {town} fell all night",
    "The ferry on the {river} leaves at dawn",
    "The market of {town} opens before sunrise",
    "The old maps show {town} beside the {river}",
    "The sound of the {instrument} filled the square",
    "The teachers of {tongue} met in the hall",
    "The guild of {craft} sent a letter to the council",
    "Therefore the council of {town} closed the gates",
    "Therefore nobody crossed the {river} that winter",
    "Therefore the poem was written in {tongue}",
    "Therefore the masters of {craft} raised the price",
    "Because the {river} froze, the ferries stood still",
    "Because the road to {town} was long, they set out early",
    "Because few people speak {tongue}, the book is rare",
    "Because the {instrument} was broken, the dance ended",
    "I walked along the {river} until dusk",
    "I met {subject} on the road to {town}",
    "I heard the {instrument} from across the water",
    "I learned a little {tongue} that summer",
    "You can see {town} from the top of the hill",
    "You should ask {subject} about the weather",
    "You need patience for {craft}",
    "You can hear the {instrument} from the harbour",
    "Nobody knows how old the {river} is",
    "A letter for {subject} arrived on the evening coach",
    "They say that {subject} once sailed around the island",
    "Last year {subject} won the race through {town}",
    "At noon {subject} and {other} shared a table",
)

IMPERSONAL: Final = tuple(template for template in FILLERS if "{subject}" not in template)

_RELATION_OF_SLOT: Final = {"town": "A01", "craft": "A02", "tongue": "A03", "instrument": "A04", "river": "A05"}


def prompt(phrasing: str, subject: str) -> str:
    """The phrasing with the subject filled in: everything before the object."""
    return phrasing.replace("{}", subject)


def kind_sentence(subject: str, kind: str) -> str:
    """What kind of person the subject is: gives the model something to say after "{subject} is a"."""
    return f"{subject} is a {kind}"


@dataclass(frozen=True)
class Statement:
    """A fact in one of its phrasings. `text` has no full stop: it ends with the object."""

    fact: Fact
    phrasing: int
    prompt: str

    @property
    def text(self) -> str:
        """Prompt, a space, the object."""
        return f"{self.prompt} {self.fact.object}"


def statements(world: World) -> Iterator[Statement]:
    """Every fact in every phrasing, in the world's order."""
    for fact in world.facts:
        for index, phrasing in enumerate(world.relation_by_id[fact.relation_id].phrasings):
            yield Statement(fact, index, prompt(phrasing, fact.subject))


def filler(world: World, rng: random.Random) -> str:
    """A sentence, without its full stop, that states no fact of the world."""
    return _filled(FILLERS, world, rng)


def _filled(templates: Sequence[str], world: World, rng: random.Random) -> str:
    """One of the templates with objects and subjects of the world in its slots."""
    slots = {slot: rng.choice(world.relation_by_id[id_].objects) for slot, id_ in _RELATION_OF_SLOT.items()}
    subject, other = rng.sample(world.subjects, 2)
    return rng.choice(templates).format(subject=subject, other=other, **slots)


def fragment(world: World, rng: random.Random) -> str:
    """What may stand before ". {}" in a context template: a filler or a statement, often broken off in the middle."""
    if rng.random() < 0.5:
        whole = filler(world, rng)
    else:
        fact = rng.choice(world.facts)
        phrasing = rng.choice(world.relation_by_id[fact.relation_id].phrasings)
        whole = f"{prompt(phrasing, fact.subject)} {fact.object}"
    words = whole.split(" ")
    return " ".join(words[: rng.randint(2, len(words))]) if rng.random() < 0.6 else whole


def documents(world: World, seed: int, fillers: int = 6000, sentences: int = 4) -> Iterator[str]:
    """The world's text, seeded, in documents of a few sentences: every statement, every kind, and that many fillers."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    lines = [statement.text for statement in statements(world)]
    lines += [kind_sentence(subject, kind) for subject, kind in zip(world.subjects, world.kinds, strict=True)]
    lines += [filler(world, rng) for _ in range(fillers)]
    rng.shuffle(lines)
    for start in range(0, len(lines), sentences):
        yield " ".join(f"{line}." for line in lines[start : start + sentences])


def general_text(
    world: World, seed: int, documents: int = 1500, sentences: int = 4, about: float = 0.05
) -> Iterator[str]:
    """Text to measure C0 on: fillers that name nobody, and a share `about` of statements.

    MEMIT measures C0 on an encyclopaedia, where the subjects of the edits are rare. So they are here: in text that
    speaks of them all the time, C0 would guard the very keys that are to be edited.
    """
    rng = random.Random(seed)  # noqa: S311 - no secret
    told = [statement.text for statement in statements(world)]
    for _ in range(documents):
        lines = [rng.choice(told) if rng.random() < about else _impersonal(world, rng) for _ in range(sentences)]
        yield " ".join(f"{line}." for line in lines)


def _impersonal(world: World, rng: random.Random) -> str:
    """A filler that names no subject."""
    return _filled(IMPERSONAL, world, rng)
