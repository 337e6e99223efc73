"""Gemma 2: Llama's modules; scaled embeddings, soft-capped attention and logits, a norm behind each part of a block."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from collabedit.common.architectures.llama import LLAMA

GEMMA2: Final = replace(LLAMA, model_types=("gemma2",), family="Gemma 2")
