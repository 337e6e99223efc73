"""Hyperparameters of an edit: MEMIT's and AlphaEdit's published JSON files are accepted as they are."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Spread = Literal["sequential", "simultaneous"]
ResidualShares = Literal["remaining", "square-root", "equal"]


class HyperParameters(BaseModel):
    """MEMIT's hyperparameters under MEMIT's own names (algorithm step 2 to 5).

    Keys of MEMIT's files that this engine does not use (`mom2_dataset`, `mlp_module_tmp`, …) are kept, so that a file
    read and written again says the same.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    layers: tuple[int, ...] = Field(min_length=1, description="edited layers, ascending, counted from 0")
    v_num_grad_steps: int = Field(ge=1, le=10_000, description="most steps of the search for z")
    v_lr: float = Field(gt=0, description="Adam's learning rate in the search for z")
    v_loss_layer: int | None = Field(
        default=None, ge=0, description="layer whose output is read as logits; default: last"
    )
    v_weight_decay: float = Field(ge=0, description="weight of ‖δ‖/‖h0‖² in the loss")
    clamp_norm_factor: float = Field(gt=0, description="‖δ‖ stays at or below this times ‖h0‖")
    kl_factor: float = Field(ge=0, description="weight of the KL term at the subject's last token")
    mom2_update_weight: float = Field(gt=0, description="λ: weight of old knowledge, C = λ·C0")
    L2: float = Field(default=10.0, gt=0, description="AlphaEdit: weight of the identity in the null space")
    nullspace_threshold: float = Field(
        default=2e-2, gt=0, description="AlphaEdit: eigenvalues of C0 below it span the null space; absolute"
    )
    kappa: float = Field(default=1.0, gt=0, description="κ, editor ridge: weight of the identity in place of C")
    fact_token: Literal["subject_last"] = "subject_last"
    rewrite_module_tmp: str = Field(default="", description="name of the edited module, {} for the layer's number")
    layer_module_tmp: str = Field(default="", description="name of a block, {} for the layer's number")

    @field_validator("layers")
    @classmethod
    def _ascending(cls, layers: tuple[int, ...]) -> tuple[int, ...]:
        if list(layers) != sorted(set(layers)) or layers[0] < 0:
            raise ValueError("layers must be ascending, without repeats, from 0 up")
        return layers
