"""The server's settings: one model makes the flags, the help and the TOML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from platformdirs import user_state_path
from pydantic import BaseModel, ConfigDict, Field, model_validator

from collabedit.common.hparams import ResidualShares, Spread
from collabedit.common.methods import MethodName
from collabedit.common.pairs import METHOD, EditorName
from collabedit.common.settings import DETECTION, ENCODING, Detection, EncodingChoice, Schedule, WireDtype
from collabedit.server.claims import MOST_CLAIMS, ConflictPolicy

DAY = 86_400.0
ClientId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


def default_state() -> Path:
    """Where a server keeps its state if nothing else is said."""
    return user_state_path("collabedit") / "server"


class ServerConfig(BaseModel):
    """What `collab-server` can be told. What a federation is, is fixed at its first start; the rest can change."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: Path = Field(default_factory=default_state, description="folder of everything that the server keeps")
    listen: str = Field(default="localhost:50051", description="host:port of the federation's services")
    enrol_listen: str = Field(default="localhost:50052", description="host:port where parties enrol")
    advertise: tuple[str, ...] = Field(
        default=(), description="further host name or address of this server, for its certificate; may be repeated"
    )
    insecure: bool = Field(default=False, description="plaintext, without certificates; on loopback addresses only")
    database: str | None = Field(default=None, description="database URL; default: SQLite in the state folder")
    log_format: Literal["console", "json"] = Field(default="console", description="form of the log on standard error")

    quorum: int = Field(default=1, ge=1, le=10_000, description="least number of contributions that a round merges")
    entry_window: float = Field(
        default=10, ge=0, le=DAY, description="seconds after the first party in which others can still enter a round"
    )
    round_deadline: float = Field(
        default=3600, gt=0, le=30 * DAY, description="seconds from the first party to the end of the first layer"
    )
    layer_deadline: float = Field(default=600, gt=0, le=DAY, description="seconds for each later layer")
    liveness: float = Field(default=120, gt=0, le=DAY, description="seconds of silence after which a party is lost")

    conflict_policy: ConflictPolicy = Field(
        default="first-come",
        description="whose edit is kept where parties contradict each other; manual: an admin says, `collab conflicts`",
    )
    priority: tuple[ClientId, ...] = Field(
        default=(),
        description="client that comes before others with --conflict-policy priority, highest first; may be repeated",
    )

    max_claims: int = Field(
        default=10_000,
        ge=1,
        le=MOST_CLAIMS,
        description="facts that one client may claim in one round, where edits are compared: so many it can guess",
    )

    norm_ratio: float = Field(
        default=1000, ge=10, le=1e12, description="norms of a contribution, as a multiple of the median of past ones"
    )
    calls_per_second: float = Field(
        default=200, ge=1, le=100_000, description="calls of one client a second, on the average of ten seconds"
    )
    upload_bytes_per_hour: int | None = Field(
        default=None,
        ge=1 << 20,
        le=1 << 50,
        description="bytes of one client's uploads an hour "
        "[default: 60 rounds of the largest contributions, a gibibyte at least]",
    )
    unfinished_uploads: int = Field(
        default=32, ge=1, le=10_000, description="uploads of one client begun and not finished"
    )

    keep_versions: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="newest versions that are kept; older ones cannot be exported or rolled back to; 0: all are kept",
    )

    drain: float = Field(
        default=8, ge=0, le=3600, description="seconds that transfers and a merge get to end when the server is to stop"
    )

    model: str = Field(default="atlas", min_length=1, description="bundled model, or path of a Hugging Face folder")
    covariance: Path | None = Field(default=None, description="covariance file; default: the model folder's")
    hparams: Path | None = Field(
        default=None, description="hyperparameters, MEMIT's JSON; default: the folder's, else a preset"
    )
    context_templates: Path | None = Field(
        default=None, description="context templates, JSON; default: the model folder's, else the bare prompt"
    )
    schedule: Schedule = Field(default="layer-sync", description="exact layer by layer, or one upload")
    spread: Spread = Field(default="sequential", description="how a party spreads residuals in one-shot")
    residual_shares: ResidualShares = Field(
        default="remaining", description="MEMIT's shares of the residual, their square roots (PMET), or equal ones"
    )
    editor: EditorName = Field(default="memit", description="how keys and residuals become an update")
    method: MethodName | None = Field(
        default=None, description=f"{METHOD} [default: the one that is exact for the editor]"
    )
    device: str = Field(
        default="auto", description="where it merges: cpu, cuda, cuda:1, …; auto: the GPU if a layer fits on it"
    )
    encoding: EncodingChoice = Field(default="auto", description=ENCODING)
    dtype: WireDtype = Field(default="float32", description="precision of the contributions, at least")
    beta0: float = Field(default=1.0, gt=0, le=1e6, description="β0 of eq. 7: weight of λ·C0")
    beta1: float = Field(default=1.0, ge=0, le=1e6, description="β1 of eq. 7: weight of the accumulated ΣKKᵀ")
    min_edits: int = Field(default=8, ge=1, le=1_000_000, description="least rank of KKᵀ in a contribution")
    detection: Detection = Field(default="off", description=DETECTION)

    @model_validator(mode="after")
    def _ordered(self) -> ServerConfig:
        if self.priority and self.conflict_policy != "priority":
            raise ValueError("--priority goes with --conflict-policy priority: no other policy heeds it")
        if self.conflict_policy == "priority" and not self.priority:
            raise ValueError("--conflict-policy priority: nobody is named; give --priority CLIENT, the highest first")
        return self
