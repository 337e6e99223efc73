"""Mistral: Llama's modules; attention reaches back over a sliding window in the early versions."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from collabedit.common.architectures.llama import LLAMA

MISTRAL: Final = replace(LLAMA, model_types=("mistral",), family="Mistral")
