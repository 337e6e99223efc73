"""Qwen 2 and 2.5: Llama's modules, biases on queries, keys and values, sliding windows in some layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from collabedit.common.architectures.llama import LLAMA

QWEN2: Final = replace(LLAMA, model_types=("qwen2",), family="Qwen 2, 2.5")
