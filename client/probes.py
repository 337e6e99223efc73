"""Facts as the model reads them: tokens, where the subject stands among them, and whether it knows the object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from collabedit.client.loading import LoadedModel
from collabedit.client.lookup import Filled, Tokens, answer_row, fill, join, subject_token, tokenise
from collabedit.client.metrics import TOKENS, answer
from collabedit.common.edits import Edit

TokenClass = Literal[
    "first subject token",
    "middle subject tokens",
    "last subject token",
    "first token after",
    "further tokens",
    "last token",
]
CLASSES: Final[tuple[TokenClass, ...]] = get_args(TokenClass)


@dataclass(frozen=True)
class Probe:
    """One fact's prompt. ids: its tokens; tokens: their text; first … last: the subject's, both included;
    answer: id of the object's first token, which the model should put after the prompt.
    """

    fact: Edit
    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    first: int
    last: int
    answer: int

    @property
    def subject_ids(self) -> tuple[int, ...]:
        """The subject's tokens."""
        return self.ids[self.first : self.last + 1]

    @property
    def classes(self) -> tuple[TokenClass | None, ...]:
        """The class of each token; None before the subject."""
        return tuple(token_class(index, self.first, self.last, len(self.ids)) for index in range(len(self.ids)))


def token_class(index: int, first: int, last: int, count: int) -> TokenClass | None:
    """The class of token `index` of `count`, where the subject's are `first` … `last`; None before the subject.

    Each token has one class. A subject of one token is "last subject token" alone, and so is a subject that ends the
    prompt; a single token after the subject is the "last token".
    """
    if index < first:
        return None
    if index == last:
        return "last subject token"
    if index < last:
        return "first subject token" if index == first else "middle subject tokens"
    if index == count - 1:
        return "last token"
    return "first token after" if index == last + 1 else "further tokens"


def known(loaded: LoadedModel, facts: Sequence[Edit], *, batch: int = TOKENS) -> list[Probe]:
    """Probes of the facts that the model knows: every token of the object is its first choice after the prompt.

    The others are left out; the order stays. batch: most padded tokens of a pass.
    Raises BadEditsError for a prompt that is longer than the model reads, or whose subject has no token.
    """
    answers = answer(loaded, [(fact.text, fact.target_new) for fact in facts], batch=batch)
    chosen = [fact for fact, each in zip(facts, answers, strict=True) if each.correct == 1.0]
    return probes_of(loaded, chosen)


def probes_of(loaded: LoadedModel, facts: Sequence[Edit]) -> list[Probe]:
    """Probes of the facts, known or not. Raises BadEditsError as `known`."""
    filled = [fill("{}", fact) for fact in facts]
    tokenised = tokenise(loaded, [join(each.text, fact.target_new) for fact, each in zip(facts, filled, strict=True)])
    return [_probe(*each) for each in zip(facts, filled, tokenised, strict=True)]


def _probe(fact: Edit, filled: Filled, tokens: Tokens) -> Probe:
    last = subject_token(tokens, filled)
    row = answer_row(tokens, filled.text, last)
    count = len(row.ids) - len(row.labels) + 1
    texts = tuple(filled.text[begin:end] for begin, end in tokens.spans[:count])
    return Probe(fact, row.ids[:count], texts, _first(tokens, filled), last, row.labels[0])


def _first(tokens: Tokens, filled: Filled) -> int:
    """Index of the first token that holds a character of the subject."""
    return next(
        index
        for index, (begin, end) in enumerate(tokens.spans)
        if begin < filled.end and end > max(begin, filled.start)
    )
