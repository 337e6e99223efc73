"""Editors, one file each; a new editor is a file and a row here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from collabedit.common.editors.alphaedit import AlphaEdit
from collabedit.common.editors.base import Editor, in_full, unsplit
from collabedit.common.editors.emmet import Emmet, Rome
from collabedit.common.editors.memit import MEMIT, Memit
from collabedit.common.editors.ridge import Ridge
from collabedit.common.hparams import HyperParameters
from collabedit.common.pairs import EditorName

EDITORS: Final[Mapping[EditorName, Callable[[HyperParameters], Editor]]] = {
    "memit": lambda _: MEMIT,
    "emmet": lambda _: Emmet(),
    "rome": lambda _: Rome(),
    "alphaedit": lambda hparams: AlphaEdit(hparams.nullspace_threshold, hparams.L2),
    "ridge": lambda hparams: Ridge(hparams.kappa),
}


def editor_of(name: EditorName, hparams: HyperParameters) -> Editor:
    """The editor of that name with the constants that the hyperparameters give it."""
    return EDITORS[name](hparams)


__all__ = [
    "EDITORS",
    "MEMIT",
    "AlphaEdit",
    "Editor",
    "Emmet",
    "Memit",
    "Ridge",
    "Rome",
    "editor_of",
    "in_full",
    "unsplit",
]
