"""What differs between families of language models, one file a family; a new family is a file and a row here."""

from __future__ import annotations

from typing import Final

from collabedit.common.architectures.base import Architecture
from collabedit.common.architectures.gemma2 import GEMMA2
from collabedit.common.architectures.gemma3 import GEMMA3, GEMMA3_TEXT
from collabedit.common.architectures.gpt2 import GPT2
from collabedit.common.architectures.gpt_neox import GPT_NEOX
from collabedit.common.architectures.gptj import GPTJ
from collabedit.common.architectures.llama import LLAMA
from collabedit.common.architectures.mistral import MISTRAL
from collabedit.common.architectures.opt import OPT
from collabedit.common.architectures.phi3 import PHI3
from collabedit.common.architectures.qwen2 import QWEN2
from collabedit.common.architectures.qwen3 import QWEN3
from collabedit.common.errors import BadModelError

ARCHITECTURES: Final = (GPT2, GPTJ, GPT_NEOX, LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA2, GEMMA3_TEXT, GEMMA3, PHI3, OPT)
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
