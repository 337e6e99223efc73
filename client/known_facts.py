"""Facts that a model may know, for causal tracing: ROME's known_1000.json, the same as JSON lines, or edits.

A fact is held as the edit that would change nothing: its `target_new` is the object that is true already.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from collabedit.common.edits import BLANK, Edit, Parsed, parse_numbered, parse_record
from collabedit.common.errors import BadEditsError


def read_facts(file: Path) -> Parsed:
    """The facts and the problems of a JSON array or of JSON lines, by line.

    Raises BadEditsError where the file cannot be read as UTF-8 text, or is an array that JSON does not allow.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadEditsError(f"{file}: {error.strerror}", mend="give the path of a readable JSON file") from error
    except UnicodeDecodeError as error:
        raise BadEditsError(f"{file}: not UTF-8 at byte {error.start}", mend="save the file as UTF-8") from error
    return parse_facts(text, str(file))


def parse_facts(text: str, name: str = "-") -> Parsed:
    """The facts and the problems of a text. Raises BadEditsError as `read_facts`, with `name` for the file."""
    if not text.lstrip().startswith("["):
        return parse_numbered(enumerate(text.split("\n"), start=1), fact_of)
    try:
        return parse_numbered(list(_entries(text)), fact_of)
    except json.JSONDecodeError as error:
        line = text.count("\n", 0, error.pos) + 1
        raise BadEditsError(
            f"{name}:{line}: not JSON: {error.msg}", mend="an array of objects, or one object a line"
        ) from error


def _entries(text: str) -> Iterator[tuple[int, str]]:
    """Each entry of a JSON array with the number of the line that it begins on. Raises JSONDecodeError."""
    decoder = json.JSONDecoder()
    at, line, counted = text.index("[") + 1, 1, 0
    while True:
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        if text[at : at + 1] == "]":
            return
        _, end = decoder.raw_decode(text, at)
        line, counted = line + text.count("\n", counted, at), at
        yield line, text[at:end]
        at = end


def fact_of(record: Any) -> Edit:
    """One JSON value as a fact. Raises ValueError or TypeError (pydantic's included) that says what is wrong.

    `attribute` is the object; `prompt` is the sentence with the subject in it or `{}` in its place; without one
    `template` is. Records without an `attribute` are edits, whose `target_true` is the object.
    """
    if isinstance(record, Mapping) and "attribute" in record:
        if not str(record["attribute"] or "").strip():
            raise ValueError("attribute is blank")
        return Edit.model_validate(
            {
                "id": str(record.get("known_id", record.get("id", ""))),
                "prompt": _prompt(record),
                "subject": record.get("subject"),
                "target_new": _stripped(record["attribute"]),
                "relation_id": record.get("relation_id"),
            }
        )
    if isinstance(record, Mapping) and "target_new" not in record and not {"requested_rewrite", "src"} & set(record):
        raise ValueError('no attribute|say the object that the model knows: "attribute", or "target_true" of an edit')
    edit = parse_record(record)
    if edit.target_true is None:
        raise ValueError("no target_true|causal tracing needs the object that the model knows, not the new one")
    return edit.model_copy(update={"target_new": _stripped(edit.target_true), "target_true": None})


def _prompt(record: Mapping[str, Any]) -> Any:
    """The prompt with `{}` where `template` has it; in known_1000.json it may go on after the template's end."""
    prompt, template, subject = record.get("prompt"), record.get("template"), record.get("subject")
    if prompt is None:
        return template
    if isinstance(prompt, str) and isinstance(template, str) and isinstance(subject, str):
        filled = template.replace(BLANK, subject)
        if template.count(BLANK) == 1 and prompt.startswith(filled):
            return template + prompt[len(filled) :]
    return prompt


def _stripped(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value
