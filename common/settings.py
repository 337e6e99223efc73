"""The settings of a federation: fixed when it is made, handed to every client that joins."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from collabedit.common.hparams import HyperParameters, ResidualShares, Spread
from collabedit.common.pairs import EditorName

PROTOCOL_VERSIONS = (1,)

Schedule = Literal["layer-sync", "one-shot"]
Encoding = Literal["factored", "dense"]
EncodingChoice = Literal["auto", "factored", "dense"]
WireDtype = Literal["float32", "float64"]
Detection = Literal["off", "on-failure", "pre-merge"]
ModelDtype = Literal["float32", "bfloat16", "float16", "float64", "auto"]

# Descriptions of settings that several commands have.
ENCODING: Final = "form of the contributions: thin factors, Δ and KKᵀ in full, or whichever is smaller, layer by layer"
DEVICE: Final = (
    "where the model runs: cpu, cuda, cuda:1, …; auto: all GPUs, and what they cannot hold in memory, on disk"
)
MODEL_DTYPE: Final = (
    "precision of the weights in memory; auto: the folder's own. Below float32 they take half the memory, but keys and"
    " edited weights are rounded; z is not"
)
DETECTION: Final = (
    "when parties' conflicts and overlaps are looked for, by blinded names: before a round merges, where edits"
    " have failed after it, or never"
)


class FederationSettings(BaseModel):
    """What must be equal on every client and the server for the merge to be exact (paper eq. 4, 7).

    `edited_weights`: full parameter names, in the order of the layers, each [d_out, d_in] after normalisation.
    Fingerprints are `sha256:…` strings of `collabedit.common.fingerprint`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    federation: str = Field(description="the federation's identity: the fingerprint of its CA, or a name in plaintext")
    model_name: str
    model_fingerprint: str
    covariance_fingerprint: str
    covariance_digest: str = Field(description="content address of the covariance file, for clients that lack it")
    edited_weights: tuple[str, ...]
    hparams: HyperParameters
    context_templates: tuple[tuple[str, ...], ...]
    schedule: Schedule = "layer-sync"
    spread: Spread = "sequential"
    residual_shares: ResidualShares = "remaining"
    editor: EditorName = Field(default="memit", description="how keys and residuals become an update")
    method: str = Field(default="collabedit", min_length=1, description="how the server merges contributions")
    encoding: EncodingChoice = Field(default="auto", description=ENCODING)
    dtype: WireDtype = "float32"
    beta0: float = Field(default=1.0, gt=0, description="β0 of eq. 7: weight of λ·C0")
    beta1: float = Field(default=1.0, ge=0, description="β1 of eq. 7: weight of the accumulated ΣKKᵀ; 0: immutable C")
    min_edits: int = Field(default=8, ge=1, description="least rank of KKᵀ that a contribution may have (figure 5)")
    detection: Detection = Field(default="off", description=DETECTION)
    protocol_versions: tuple[int, ...] = PROTOCOL_VERSIONS

    @property
    def told(self) -> str:
        """What clients are told, as JSON: without what is off, so that a release which does not know it can join."""
        return self.model_dump_json(exclude={"detection"} if self.detection == "off" else None)

    @property
    def client_needs_prior(self) -> bool:
        """Whether a client must compute with C itself: for its own Δ, which the factors leave to the server."""
        return self.encoding == "dense" or (self.schedule == "one-shot" and self.spread == "sequential")
