"""What differs between families of language models, one file a family; a new family is a file and a row here."""

from __future__ import annotations

from typing import Final

from collabedit.common.architectures.base import Architecture
from collabedit.common.architectures.gpt2 import GPT2
from collabedit.common.errors import BadModelError

ARCHITECTURES: Final = (GPT2,)
BY_MODEL_TYPE: Final = {model_type: each for each in ARCHITECTURES for model_type in each.model_types}


def architecture_of(model_type: str) -> Architecture:
    """The family of a model by the `model_type` of its config.json. Raises BadModelError where no adapter fits."""
    try:
        return BY_MODEL_TYPE[model_type]
    except KeyError:
        known = ", ".join(sorted(BY_MODEL_TYPE))
        raise BadModelError(
            f'no adapter for models of type "{model_type}"',
            mend=f"supported: {known}; CONTRIBUTING.md says how to add one",
        ) from None


__all__ = ["ARCHITECTURES", "Architecture", "architecture_of"]
