"""Qwen 3: Llama's modules, with queries and keys normalised."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from collabedit.common.architectures.llama import LLAMA

QWEN3: Final = replace(LLAMA, model_types=("qwen3",), family="Qwen 3")
