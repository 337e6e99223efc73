"""The client's settings: one model makes the flags, the TOML's keys and the help."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from platformdirs import user_state_path
from pydantic import BaseModel, ConfigDict, Field, model_validator

from collabedit.client.state_folder import StateFolder
from collabedit.common.settings import DEVICE, MODEL_DTYPE, ModelDtype

SERVER_VARIABLE: Final = "COLLAB_SERVER"


class ClientConfig(BaseModel):
    """`collab-client`'s settings. A flag overrides the TOML; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    edits: Path = Field(description="your edits, JSON lines or one array; the daemon follows the file")
    server: str | None = Field(
        default=None,
        description=f"host:port of the coordinator [default: ${SERVER_VARIABLE}, the enrolment's, localhost:50051]",
    )
    state: Path | None = Field(
        default=None, description="folder of credentials, ledger and unfinished work [default: in your state folder]"
    )
    model: str | None = Field(
        default=None, description="model folder or bundled name [default: the federation's model if it is bundled]"
    )
    covariance: Path | None = Field(
        default=None, description="covariance file [default: the model folder's, else the server's]"
    )
    once: bool = Field(default=False, description="end when no edit waits for a round any more, or say what is missing")
    skip_invalid: bool = Field(default=False, description="leave bad lines out instead of refusing the file")
    device: str = Field(default="cpu", description=DEVICE)
    model_dtype: ModelDtype = Field(default="float32", description=MODEL_DTYPE)
    batch_tokens: int | None = Field(
        default=None,
        ge=64,
        le=1 << 20,
        description="tokens under way at once: bounds memory [default: by what is free]",
    )
    patience: int = Field(
        default=600, ge=1, le=86_400, description="with --once: seconds without an answer until the server is given up"
    )
    report: Path | None = Field(default=None, description="file that the result of each round is written to, as JSON")
    skip_known: bool = Field(default=True, description="leave edits out that the shared weights hold already")
    forgotten: Literal["tell", "resubmit"] = Field(
        default="tell", description="merged edits that a later version holds no longer: say so, or write them again"
    )
    retention_sample: int = Field(
        default=200,
        ge=1,
        le=100_000,
        description="earlier rounds' edits that are scored again on each version, at most; and of skipped ones",
    )
    padding: Path | None = Field(
        default=None,
        description="public facts, JSON: those that the model answers rightly fill up what falls short of the"
        " federation's least number of edits",
    )
    federation_key: Path | None = Field(
        default=None, description="key that parties' claims are blinded under [default: federation.key in the state]"
    )
    insecure: bool = Field(default=False, description="plaintext; for a server on this host only")
    client_id: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9._-]{1,64}$",
        description="with --insecure: this client's name; else the certificate says it",
    )

    @model_validator(mode="after")
    def _named_in_plaintext(self) -> ClientConfig:
        if self.insecure and self.client_id is None:
            raise ValueError("--insecure needs --client-id: without a certificate nothing else says who you are")
        if self.client_id is not None and not self.insecure:
            raise ValueError("--client-id goes with --insecure only: the certificate says who you are")
        return self

    @property
    def folder(self) -> StateFolder:
        """The state folder."""
        return StateFolder(self.state or default_state())


def default_state() -> Path:
    """The state folder of a client that is told none."""
    return Path(user_state_path("collabedit") / "client")
