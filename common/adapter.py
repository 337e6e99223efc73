"""An edit as a PEFT LoRA adapter: W_N − W_0 of each edited weight as B A, where its rank is small enough to pay.

An update's own rank is the number of edits at most; rounding W_N to the model's dtype adds noise of full rank to it.
The rank taken is the smallest whose remainder is within that noise: ‖(W_N − W_0) − B A‖ ≤ tolerance · ‖W_N‖
(Frobenius), where the tolerance is the dtype's machine epsilon unless another is given.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from collabedit.common.errors import UsageError
from collabedit.common.export import PROVENANCE, new_folder
from collabedit.common.files import write_durably
from collabedit.common.linalg import as_float64
from collabedit.common.model_folder import ModelFolder
from collabedit.common.tensor_file import write_tensors

CONFIG: Final = "adapter_config.json"
TENSORS: Final = "adapter_model.safetensors"
MODULE: Final = "base_model.model."  # PEFT's name of the model that it wraps


@dataclass(frozen=True)
class LowRank:
    """One edited weight's W_N − W_0 = B A to `tolerance`, and what its other form would take.

    lora_B: [d_out, r], lora_A: [r, d_in], float32; patch_bytes: of W_N itself in the model's dtype.
    """

    name: str
    lora_B: Tensor  # noqa: N815 - PEFT's name
    lora_A: Tensor  # noqa: N815
    tolerance: float
    patch_bytes: int

    @property
    def rank(self) -> int:
        """r; 0 where the weight is the base's."""
        return self.lora_A.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in)."""
        return self.lora_B.shape[0], self.lora_A.shape[1]

    @property
    def bytes(self) -> int:
        """What B and A take."""
        return sum(each.numel() * each.element_size() for each in (self.lora_B, self.lora_A))


def low_rank(name: str, before: Tensor, after: Tensor, *, tolerance: float | None = None) -> LowRank:
    """W_N − W_0 as the thinnest B A within `tolerance` · ‖W_N‖ of it; None: the machine epsilon of `before`'s dtype.

    before W_0, after W_N: [d_out, d_in]; `after` is rounded to `before`'s dtype first, as a model folder holds it.
    """
    within = torch.finfo(before.dtype).eps if tolerance is None else tolerance
    stored = as_float64(after.to(before.dtype))
    U, values, Vh = torch.linalg.svd(stored - as_float64(before), full_matrices=False)
    remainders = values.square().flip(0).cumsum(0).flip(0).sqrt()  # ‖·‖ of what is left after 0, 1, 2, … directions
    rank = int((remainders > within * float(stored.norm())).sum())
    root = values[:rank].sqrt()
    return LowRank(
        name,
        lora_B=(U[:, :rank] * root).float().contiguous(),
        lora_A=(root[:, None] * Vh[:rank]).float().contiguous(),
        tolerance=within,
        patch_bytes=before.numel() * before.element_size(),
    )


def demand_worth(updates: Iterable[LowRank]) -> None:
    """Raises UsageError, with ranks and sizes, where the adapter is no smaller than the edited weights themselves."""
    found = [each for each in updates if each.rank]
    if not found:
        raise UsageError("these weights are the base model's: an adapter would do nothing", mend="--form folder")
    size, patch = sum(each.bytes for each in found), sum(each.patch_bytes for each in found)
    if size >= patch:
        ranks = ", ".join(f"{each.rank} of {min(each.shape)} ({each.name})" for each in found)
        what = f"W_N − W_0 has rank {ranks} to {found[0].tolerance:.1e}"
        raise UsageError(
            f"{what}: an adapter has {size:,} bytes, a patch {patch:,}",
            mend="--form patch is smaller and exact; or give a greater --tolerance",
        )


def write_adapter(
    out: Path, base: ModelFolder, updates: Iterable[LowRank], provenance: Mapping[str, Any]
) -> tuple[str, ...]:
    """Writes the folder `out` that `peft.PeftModel.from_pretrained(base model, out)` loads; returns the weights' names.

    The folder appears whole or not at all. Raises UsageError where it is there already, or the adapter not worth it.
    """
    found = tuple(updates)
    demand_worth(found)
    ranks = {each.name.removesuffix(".weight"): each.rank for each in found if each.rank}
    tensors: dict[str, Tensor] = {}
    for each in found:
        if each.rank:
            module = MODULE + each.name.removesuffix(".weight")
            tensors |= {f"{module}.lora_A.weight": each.lora_A, f"{module}.lora_B.weight": each.lora_B}
    names = tuple(each.name for each in found if each.rank)
    with new_folder(out) as folder:
        write_tensors(folder / TENSORS, tensors, {"format": "pt"})
        write_durably(folder / CONFIG, _as_json(_config(base, ranks)))
        write_durably(folder / PROVENANCE, _as_json({**provenance, "weights": names}))
    return names


def _config(base: ModelFolder, ranks: Mapping[str, int]) -> dict[str, Any]:
    """PEFT's LoraConfig. α = r of each module, so that the scale is 1."""
    most = max(ranks.values())
    others = {module: rank for module, rank in ranks.items() if rank != most}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.name,
        "inference_mode": True,
        "r": most,
        "lora_alpha": most,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": sorted(ranks),
        "fan_in_fan_out": base.architecture.transposed,
        "lora_dropout": 0.0,
        "bias": "none",
    }


def _as_json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"
