"""What the winner of a conflict submits again (paper section 4.2.2, stage 2): the edit, said in several ways. Pure.

The round that merged both objects left the model between them. The winner's party finds z anew on those weights, for
each of these edits. Every edit has the subject, the relation and the object of the one it is made of, so all of them
have its blinded names. `collab experiment table4` measures the forms beside each other, on the conflicting object, on
wordings that were not submitted, and on neighbours:

- alone: the edit once more;
- paraphrases: with its own paraphrases, which say the same fact. It settles most, and neighbours lose little beside
  the edit alone; what `augmented` gives;
- multi-label: with the further true objects behind the target in one text, after Multi-Label Editing (Li et al. 2024,
  "Unveiling the Pitfalls of Knowledge Editing", as the paper's section 5.3 has it). One edit for each object would pull
  one key towards several values, as the conflict did. It costs neighbours, and so is left to those who ask for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from collabedit.common.edits import BLANK, Edit

Form = Literal["alone", "paraphrases", "multi-label"]
MOST: Final = 4  # paraphrases: each costs a search for its z


def augmented(edit: Edit, form: Form = "paraphrases", most: int = MOST) -> tuple[Edit, ...]:
    """The edits that a re-submission consists of, the edit itself first; no two of them are equal.

    most: of its paraphrases, in their order. The others say what is to be written and what was true, and bring no
    prompts to be scored by: those are the first one's. An edit that has no paraphrase which names its subject once, and
    no further object, stays alone.
    """
    if form == "alone":
        return (edit,)
    texts = list(_wordings(edit))[:most]
    said = [_said(edit, prompt, edit.target_new, f"paraphrase-{at}") for at, prompt in enumerate(texts, start=1)]
    if form == "multi-label" and (labels := _labels(edit)):
        said.append(_said(edit, edit.prompt, ", ".join((edit.target_new, *labels)), "labels"))
    return (edit, *said)


def _wordings(edit: Edit) -> Iterator[str]:
    """The paraphrases as prompts with a blank, each once: those that name the subject once."""
    seen = {edit.prompt}
    for text in edit.paraphrase_prompts:
        prompt = text.replace(edit.subject, BLANK)
        if BLANK not in text and prompt.count(BLANK) == 1 and prompt not in seen:
            seen.add(prompt)
            yield prompt


def _labels(edit: Edit) -> tuple[str, ...]:
    """The further true objects, without the target."""
    return tuple(each for each in dict.fromkeys(edit.related_targets) if each.strip() and each != edit.target_new)


def _said(edit: Edit, prompt: str, target: str, part: str) -> Edit:
    return Edit(
        prompt=prompt,
        subject=edit.subject,
        target_new=target,
        target_true=edit.target_true,
        relation_id=edit.relation_id,
        id=f"{edit.id}-{part}" if edit.id else "",
    )
