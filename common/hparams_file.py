"""Hyperparameters in a file: MEMIT's published JSON, as it is."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from collabedit.common.errors import BadFileError
from collabedit.common.hparams import HyperParameters


def read_hparams_file(path: Path) -> HyperParameters:
    """Hyperparameters from a JSON file. Raises BadFileError that names the file and the key."""
    mend = "MEMIT's JSON files are accepted as they are"
    try:
        return HyperParameters.model_validate_json(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise BadFileError(f"{path}: {error.strerror}", mend="give the path of MEMIT's JSON file") from error
    except UnicodeDecodeError as error:
        raise BadFileError(f"{path}: not UTF-8 at byte {error.start}", mend="save the file as UTF-8") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadFileError(f"{path}: {where + ': ' if where else ''}{first['msg']}", mend=mend) from error
