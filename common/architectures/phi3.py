"""Phi-3 and Phi-3.5: Llama's modules, with queries, keys and values in one matrix, and gate and up in another."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from collabedit.common.architectures.llama import LLAMA

PHI3: Final = replace(LLAMA, model_types=("phi3",), family="Phi-3, Phi-3.5")
