"""Documentation that cannot drift: pages drawn from the code, and links that lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from collabedit.cli import reference

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("name", sorted(reference.PAGES))
def test_reference_pages_are_what_the_code_says(name: str) -> None:
    """A flag that is added or changed without `make docs` fails here."""
    assert (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8") == reference.PAGES[name]()


@pytest.mark.parametrize(
    "name, command", list(reference.commands()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_command_has_help_with_an_example(name: str, command: object) -> None:
    """A person who only types --help is told what a command is for, and sees one that works."""
    text = reference.help_text(name, command)  # type: ignore[arg-type]
    assert command.help  # type: ignore[attr-defined]
    assert re.search(r"(Example|Try it|A party, with)", text), text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of the documentation names a file that is there."""
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"
