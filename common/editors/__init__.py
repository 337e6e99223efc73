"""Editors, one file each; a new editor is a file and a row here."""

from __future__ import annotations

from collabedit.common.editors.base import Editor, in_full, unsplit
from collabedit.common.editors.memit import MEMIT, Memit

__all__ = ["MEMIT", "Editor", "Memit", "in_full", "unsplit"]
