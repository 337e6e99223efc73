"""How well edits took: ES, PS, NS and their Score (algorithm section 9, paper appendix C). Fractions of 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp
from statistics import fmean, harmonic_mean

import torch
from torch import Tensor
from torch.nn import functional

from collabedit.client.loading import LoadedModel
from collabedit.client.lookup import Row, answer_row, join, tokenise
from collabedit.client.passes import Extent, groups, logits_at, pad
from collabedit.common.edits import Edit

TOKENS = 4096  # padded tokens of a pass


@dataclass(frozen=True)
class Answer:
    """A target after a prompt, teacher-forced. nll: nats, mean over the target's tokens; correct: of its tokens, the
    share that the model ranks first; probability: of the whole target.
    """

    nll: float
    correct: float
    probability: float


@dataclass(frozen=True)
class EditScore:
    """One edit. efficacy, paraphrase, neighborhood: share of the prompts of a kind that succeed; None where the edit
    has no such prompts, or no target_true to compare with. correct: share of target_new's tokens that are the model's
    first choice after the prompt; probability: of target_new after the prompt.
    """

    id: str
    efficacy: float | None
    paraphrase: float | None
    neighborhood: float | None
    correct: float
    probability: float

    @property
    def succeeded(self) -> bool:
        """The edit holds: the new target beats the true one or, where none is known, is the model's own answer."""
        return self.correct == 1.0 if self.efficacy is None else self.efficacy == 1.0


@dataclass(frozen=True)
class Scores:
    """Means over the edits that have a kind, under the paper's names; None where no edit has it.

    Score: harmonic mean of the kinds that are there (0 where one of them is 0), None where none is.
    correct: mean share of target_new's tokens that the model ranks first.
    """

    ES: float | None
    PS: float | None
    NS: float | None
    Score: float | None
    correct: float | None
    edits: tuple[EditScore, ...]

    def row(self) -> dict[str, float | None]:
        """The figures as one row of a table."""
        return {"ES": self.ES, "PS": self.PS, "NS": self.NS, "Score": self.Score}


def score(
    loaded: LoadedModel,
    edits: Sequence[Edit],
    *,
    batch: int = TOKENS,
    on_progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Scores the model's present weights on edits.

    ES and PS: NLL(true) > NLL(new) after the prompt and after each paraphrase; NS: NLL(true) < NLL(new) after each
    neighbour. A tie is no success in either. Averaged within an edit, then over edits.
    batch: most padded tokens of a pass. on_progress: called with the prompts done and their number.
    Raises BadEditsError for a prompt longer than the model reads.
    """
    asked = [_questions(edit) for edit in edits]
    pairs = [pair for questions in asked for pair in questions]
    answers = iter(answer(loaded, pairs, batch=batch, on_progress=on_progress))
    scored = [_scored(edit, [next(answers) for _ in questions]) for edit, questions in zip(edits, asked, strict=True)]
    es, ps, ns = (
        _mean([getattr(each, kind) for each in scored]) for kind in ("efficacy", "paraphrase", "neighborhood")
    )
    return Scores(es, ps, ns, combined((es, ps, ns)), _mean([each.correct for each in scored]), tuple(scored))


def combined(kinds: Sequence[float | None]) -> float | None:
    """The harmonic mean of the kinds that are there; None where none is."""
    present = [kind for kind in kinds if kind is not None]
    return float(harmonic_mean(present)) if present else None


def answer(
    loaded: LoadedModel,
    pairs: Sequence[tuple[str, str]],
    *,
    batch: int = TOKENS,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Answer]:
    """How the model takes each (prompt, target): see `Answer`; in the order given. Equal pairs are run once."""
    unique = list(dict.fromkeys(pairs))
    rows = [
        answer_row(tokens, prompt)
        for (prompt, _), tokens in zip(unique, tokenise(loaded, [join(*pair) for pair in unique]), strict=True)
    ]
    found: dict[tuple[str, str], Answer] = {}
    for members in groups([Extent.of([row]) for row in rows], batch):
        for member, each in zip(members, _forced(loaded, [rows[member] for member in members]), strict=True):
            found[unique[member]] = each
        if on_progress is not None:
            on_progress(len(found), len(unique))
    return [found[pair] for pair in pairs]


@torch.no_grad()
def _forced(loaded: LoadedModel, rows: Sequence[Row]) -> list[Answer]:
    """One pass: logits at the positions before the targets' tokens alone."""
    padded = pad(rows, loaded.device)
    places = [
        (index, len(row.ids) - len(row.labels) + order)
        for index, row in enumerate(rows)
        for order in range(len(row.labels))
    ]
    at = torch.tensor(places, device=loaded.device)
    with logits_at(loaded, at[:, 0], at[:, 1]):
        output = loaded.model(
            input_ids=padded.ids, attention_mask=padded.mask, position_ids=padded.positions, use_cache=False
        )
    logits: Tensor = output.logits[0].to(loaded.working_dtype)
    labels = torch.tensor([label for row in rows for label in row.labels], device=logits.device)
    nll = functional.cross_entropy(logits, labels, reduction="none").double().cpu()
    first = (logits.argmax(-1) == labels).double().cpu()
    sizes = [len(row.labels) for row in rows]
    return [
        Answer(float(part.mean()), float(right.mean()), exp(-float(part.sum())))
        for part, right in zip(torch.split(nll, sizes), torch.split(first, sizes), strict=True)
    ]


def _questions(edit: Edit) -> list[tuple[str, str]]:
    """(prompt, target) pairs: the prompt with target_new; then, where there is a target_true, it after the prompt, and
    both after each paraphrase and each neighbour.
    """
    pairs = [(edit.text, edit.target_new)]
    if edit.target_true is not None:
        pairs.append((edit.text, edit.target_true))
        for prompt in (*edit.paraphrase_prompts, *edit.neighborhood_prompts):
            pairs += [(prompt, edit.target_new), (prompt, edit.target_true)]
    return pairs


def _scored(edit: Edit, answers: Sequence[Answer]) -> EditScore:
    """Answers in the order of `_questions`."""
    new, true = answers[0::2], answers[1::2]
    wins = [float(n.nll < t.nll) for n, t in zip(new, true, strict=False)]
    kept = [float(t.nll < n.nll) for n, t in zip(new, true, strict=False)]
    neighbours = 1 + len(edit.paraphrase_prompts)
    return EditScore(
        edit.id,
        _mean(wins[:1]),
        _mean(wins[1:neighbours]),
        _mean(kept[neighbours:]),
        answers[0].correct,
        answers[0].probability,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return fmean(present) if present else None
