"""Where the subject's last token stands in a tokenised sentence, and which tokens are the target's.

Both are read from the fast tokenizer's character offsets. Counting the tokens of the text before and of the subject
apart goes wrong where a token spans the boundary, and with tokenizers that put a token in front of every text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from collabedit.client.loading import LoadedModel
from collabedit.common.edits import BLANK, Edit
from collabedit.common.errors import BadEditsError, UsageError


@dataclass(frozen=True)
class Row:
    """One tokenised sentence. ids: token ids; subject: index of the subject's last token;
    labels: the target's token ids, of which the last len(labels) tokens of `ids` predict one each.
    """

    ids: tuple[int, ...]
    subject: int
    labels: tuple[int, ...] = ()


@dataclass(frozen=True)
class Filled:
    """A sentence and the characters [start, end) of the subject in it."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Tokens:
    """A tokenised text: ids, and the characters [start, end) of each; special tokens have empty spans."""

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]


def fill(template: str, edit: Edit) -> Filled:
    """A context template around an edit's prompt, around its subject: the subject stands where `{}` was.

    Raises UsageError where the template has not exactly one `{}`.
    """
    if template.count(BLANK) != 1:
        raise UsageError(f'the context template "{template}" has {template.count(BLANK)} times {{}}, not once')
    outer, inner = template.partition(BLANK), edit.prompt.partition(BLANK)
    head = outer[0] + inner[0]
    return Filled(head + edit.subject + inner[2] + outer[2], len(head), len(head) + len(edit.subject.rstrip()))


def join(prompt: str, target: str) -> str:
    """The prompt going on with the target: a space between them, unless one of them brings it."""
    bare = prompt[-1:].isspace() or target[:1].isspace() or not prompt
    return prompt + target if bare else f"{prompt} {target}"


def tokenise(loaded: LoadedModel, texts: Sequence[str]) -> list[Tokens]:
    """Token ids and character spans of each text, with the special tokens that the tokenizer puts in front.

    Raises BadEditsError where a text is longer than the model's positions.
    """
    if not texts:
        return []
    coded = loaded.tokenizer(list(texts), return_offsets_mapping=True, return_attention_mask=False, verbose=False)
    longest = loaded.longest
    found = []
    for text, ids, spans in zip(texts, coded["input_ids"], coded["offset_mapping"], strict=True):
        if len(ids) > longest:
            raise BadEditsError(f'"{text[:60]}…" has {len(ids)} tokens; {loaded.folder.name} reads at most {longest}')
        found.append(Tokens(tuple(ids), tuple((begin, end) for begin, end in spans)))
    return found


def subject_token(tokens: Tokens, filled: Filled) -> int:
    """Index of the last token that holds a character of the subject. Raises BadEditsError where none does."""
    for index in range(len(tokens.ids) - 1, -1, -1):
        begin, end = tokens.spans[index]
        if begin < filled.end and end > max(begin, filled.start):
            return index
    raise BadEditsError(
        f'no token of "{filled.text}" belongs to the subject "{filled.text[filled.start : filled.end]}"',
        mend="the tokenizer drops the subject's characters: write it otherwise",
    )


def first_after(tokens: Tokens, character: int) -> int:
    """Index of the first token that reaches beyond `character` characters: where the target begins."""
    for index, (begin, end) in enumerate(tokens.spans):
        if end > max(begin, character):
            return index
    return len(tokens.ids)


def answer_row(tokens: Tokens, prompt: str, subject: int = 0) -> Row:
    """The row that teacher-forces a target: `tokens` are of prompt and target joined (algorithm section 9).

    Raises BadEditsError where the target has no token, or nothing stands before it.
    """
    first = first_after(tokens, len(prompt))
    if not 0 < first < len(tokens.ids):
        raise BadEditsError(f'the tokenizer leaves no token to predict after "{prompt}"')
    return Row(tokens.ids[:-1], subject, tokens.ids[first:])


def rewriting_rows(loaded: LoadedModel, edit: Edit, templates: Sequence[Sequence[str]]) -> tuple[Row, ...]:
    """Every template filled with the edit, followed by its target without the last token (algorithm step 2)."""
    filled = [fill(template, edit) for group in templates for template in group]
    tokenised = tokenise(loaded, [join(each.text, edit.target_new) for each in filled])
    return tuple(
        answer_row(tokens, each.text, subject_token(tokens, each))
        for each, tokens in zip(filled, tokenised, strict=True)
    )


def drift_row(loaded: LoadedModel, edit: Edit) -> Row:
    """`{subject} is a`, up to the subject's last token: nothing behind it bears on the KL term, which is read there."""
    filled = Filled(f"{edit.subject} is a", 0, len(edit.subject.rstrip()))
    tokens = tokenise(loaded, [filled.text])[0]
    subject = subject_token(tokens, filled)
    return Row(tokens.ids[: subject + 1], subject)


def key_rows(loaded: LoadedModel, edit: Edit, templates: Sequence[Sequence[str]]) -> tuple[Row, ...]:
    """Every template filled with the edit, up to the subject's last token: nothing behind it bears on the key."""
    filled = [fill(template, edit) for group in templates for template in group]
    rows = []
    for each, tokens in zip(filled, tokenise(loaded, [each.text for each in filled]), strict=True):
        subject = subject_token(tokens, each)
        rows.append(Row(tokens.ids[: subject + 1], subject))
    return tuple(rows)
