"""The package as it is installed: complete, typed, and the same from the wheel as from the source tree."""

from __future__ import annotations

import importlib
import os
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
TOP = {folder: name for name, folder in SETUPTOOLS["package-dir"].items()}


def packages_on_disk() -> set[str]:
    """Import names of every folder that holds Python code."""
    found = set()
    for folder, name in TOP.items():
        for file in (ROOT / folder).rglob("*.py"):
            inside = file.parent.relative_to(ROOT / folder).parts
            if "__pycache__" not in inside:
                found.add(".".join((name, *inside)))
    return found


def test_every_folder_with_code_is_packaged() -> None:
    """A package that is missing from pyproject would import from an editable install and be absent from the wheel."""
    assert packages_on_disk() == set(SETUPTOOLS["packages"])


@pytest.mark.wheel
@pytest.mark.parametrize("name", sorted(SETUPTOOLS["packages"]))
def test_every_package_imports_where_it_is_installed(name: str) -> None:
    """Under test of the wheel, each package comes from the environment's site-packages, not from the source tree."""
    module = importlib.import_module(name)
    assert module.__file__ is not None
    from_tree = Path(module.__file__).resolve().is_relative_to(ROOT) and "site-packages" not in module.__file__
    assert from_tree == ("COLLAB_TEST_WHEEL" not in os.environ)


@pytest.mark.wheel
@pytest.mark.parametrize("name", sorted(SETUPTOOLS["package-dir"]))
def test_every_top_package_says_that_it_is_typed(name: str) -> None:
    """Users' type checkers read our annotations: `py.typed` is part of what is installed."""
    module = importlib.import_module(name)
    assert module.__file__ is not None
    assert (Path(module.__file__).parent / "py.typed").is_file()
