"""Attention for models in float64 whose family has no `sdpa`: transformers' own takes its softmax in float32 there.

Beside the lost digits, the mask's lowest number of float64 is minus infinity in float32: a padded position that may
look nowhere becomes NaN, and through it everything that shares a batch with it.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

EXACT: Final = "collabedit_exact"


def exact_attention(
    _: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    **__: Any,
) -> tuple[Tensor, None]:
    """Softmax attention in the dtype of `query`. Returns [rows, columns, heads, head_dim].

    query: [rows, heads, columns, head_dim]; key, value: [rows, key heads, keys, head_dim]; attention_mask:
    [rows, 1, columns, keys], true where a query may look; what may look nowhere gets 0.
    """
    shared = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(shared, dim=1), value.repeat_interleave(shared, dim=1)
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    lowest = torch.finfo(scores.dtype).min
    weights = scores.masked_fill(~attention_mask, lowest).softmax(-1) * attention_mask
    return (weights @ value).transpose(1, 2), None


def _mask(*args: Any, **kwargs: Any) -> Tensor:
    """transformers' mask for `sdpa`, made even where it could be left out."""
    kwargs["allow_is_causal_skip"] = False
    made: Tensor = sdpa_mask(*args, **kwargs)
    return made


AttentionInterface.register(EXACT, exact_attention)
AttentionMaskInterface.register(EXACT, _mask)


def make_exact(model: Any) -> None:
    """Takes a float64 model's attention off transformers' own eager one, where the family lets it be chosen."""
    config = model.config.get_text_config()
    if model.dtype == torch.float64 and config._attn_implementation == "eager" and model._supports_attention_backend:
        model.set_attn_implementation(EXACT)
