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
    """A tokenised text: ids, and the characters [start, end) of each.

    The space before a word is its token's own, whatever the tokenizer says of it; a token that stands in front of every
    text has an empty span.
    """

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
    """Token ids and character spans of each text.

    What the tokenizer puts in front of every text is there; what it puts behind (an end of text) is not: nothing
    follows it, and a prompt goes on. Raises BadEditsError where a text is longer than the model's positions.
    """
    if not texts:
        return []
    coded = loaded.tokenizer(
        list(texts), add_special_tokens=True, padding=False, truncation=False, return_offsets_mapping=True,
        return_special_tokens_mask=True, return_attention_mask=False, verbose=False,
    )  # fmt: skip
    columns = (coded["input_ids"], coded["offset_mapping"], coded["special_tokens_mask"])
    longest = loaded.longest
    found = []
    for text, ids, spans, special in zip(texts, *columns, strict=True):
        tokens = _whole(text, ids, spans, special)
        if len(tokens.ids) > longest:
            size = len(tokens.ids)
            raise BadEditsError(f'"{text[:60]}…" has {size} tokens; {loaded.folder.name} reads at most {longest}')
        found.append(tokens)
    return found


def _whole(text: str, ids: Sequence[int], spans: Sequence[tuple[int, int]], special: Sequence[int]) -> Tokens:
    """Up to the last token that is not `special` (1: added by the tokenizer), each with the white space before it."""
    count = max((number for number, each in enumerate(special, start=1) if not each), default=0)
    reached, found = 0, []
    for (begin, end), added in zip(spans[:count], special, strict=False):
        spaced = not added and text[reached:begin].isspace()
        found.append((reached if spaced else begin, end))
        reached = max(reached, end)
    return Tokens(tuple(ids[:count]), tuple(found))


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
