"""What studies can be told: each field becomes a flag of `collab experiment NAME`. Light: `--help` imports this."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from collabedit.common.pairs import EditorName
from collabedit.common.settings import DEVICE

RecordSet = Literal["bundled", "counterfact", "multi-counterfact", "zsre", "easy-conflict"]
INCIDENTAL: Final = frozenset({"threads", "data"})  # fields on which no result depends


class StudySettings(BaseModel):
    """What every study has. Paths of files are part of a run's fingerprint by their content."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(default="atlas", description="a bundled model's name, or a Hugging Face model folder")
    parties: int = Field(default=10, ge=1, le=1000, description="how many parties")
    edits_per_party: int = Field(default=20, ge=1, le=100_000, description="edits of each party")
    records: RecordSet = Field(
        default="bundled", description="the edits: those of the bundled model's world, or a data set in --data"
    )
    data: Path | None = Field(
        default=None, description="folder of the data sets [default: $COLLAB_DATA, ../shared/data]"
    )
    seed: int = Field(default=0, ge=0, le=2**31, description="which edits are dealt to whom; resamples of intervals")
    editor: EditorName = Field(default="memit", description="how keys and residuals become an update")
    precision: Literal["float64", "float32"] = Field(
        default="float64", description="of the model that keys are measured on; z is searched for in float32"
    )
    device: str = Field(default="cpu", description=DEVICE)
    threads: int = Field(
        default=1, ge=1, le=1024, description="CPU threads; for a model as small as atlas 1 is fastest"
    )
    hparams: Path | None = Field(default=None, description="MEMIT's JSON [default: the folder's, else a preset]")
    covariance: Path | None = Field(default=None, description="covariance file [default: the model folder's]")
    context_templates: Path | None = Field(
        default=None, description="context templates, JSON [default: the model folder's]"
    )


class Table1Settings(StudySettings):
    """`collab experiment table1`."""

    sets: Literal["both", "mcf", "zsre"] = Field(
        default="both", description="records of CounterFact's kind, zsRE's, or both"
    )
    questions_per_party: int | None = Field(
        default=None, ge=1, le=100_000, description="edits of each party of zsRE's kind [default: as of the other]"
    )
    live: bool = Field(
        default=False, description="collabedit's rows come from a real server and a client process for each party"
    )


class Figure1Settings(StudySettings):
    """`collab experiment figure1`."""

    edits_per_party: int = Field(default=40, ge=1, le=100_000, description="edits of each party, at the most")


class Figure6Settings(StudySettings):
    """`collab experiment figure6`."""

    parties: int = Field(default=40, ge=2, le=1000, description="how many parties, at the most")
    edits_per_party: int = Field(default=10, ge=1, le=100_000, description="edits of each party where they are fixed")
    total: int = Field(default=200, ge=2, le=1_000_000, description="edits of all parties where that is fixed")


class Table4Settings(StudySettings):
    """`collab experiment table4`."""

    parties: int = Field(default=10, ge=2, le=1000, description="how many parties; each is in conflict with two others")
    edits_per_party: int = Field(
        default=20, ge=1, le=100_000, description="edits of each party, each of them contested"
    )
    precision: Literal["float64", "float32"] = Field(default="float32", description="of the model")


class Table6Settings(StudySettings):
    """`collab experiment table6`."""

    parties: int = Field(default=10, ge=2, le=1000, description="how many parties; each contradicts one, and is by one")
    edits_per_party: int = Field(default=20, ge=1, le=100_000, description="edits of each party, half of them rivals")
    sets: Literal["mcf", "zsre"] = Field(default="mcf", description="records of CounterFact's kind, or zsRE's")


class ManyRoundsSettings(StudySettings):
    """What studies of many rounds have."""

    parties: int = Field(default=4, ge=1, le=1000, description="how many parties")
    edits_per_party: int = Field(default=10, ge=1, le=100_000, description="edits of each party in each round")
    rounds: int = Field(default=8, ge=1, le=1000, description="how many rounds")
    precision: Literal["float64", "float32"] = Field(default="float32", description="of the model")
    z: Literal["each-round", "once"] = Field(
        default="each-round", description="find z on the weights of the round, or once, on the unedited model"
    )


class RoundsSettings(ManyRoundsSettings):
    """`collab experiment rounds`."""

    beta0: float = Field(default=1.0, gt=0, le=1e6, description="β0 of eq. 7, of collabedit and global-edit")
    beta1: float = Field(default=1.0, ge=0, le=1e6, description="β1 of eq. 7, of collabedit and global-edit")


class Table5Settings(RoundsSettings):
    """`collab experiment table5`."""

    seeds: int = Field(default=4, ge=1, le=100, description="how many deals of edits, pooled")


class AblationBetaSettings(ManyRoundsSettings):
    """`collab experiment ablation-beta`."""

    seeds: int = Field(default=2, ge=1, le=100, description="how many deals of edits, pooled")


class Figure3Settings(StudySettings):
    """`collab experiment figure3`."""

    parties: int = Field(default=4, ge=1, le=1000, description="how many parties")
    edits_per_party: int = Field(default=10, ge=1, le=100_000, description="edits of each party")
    rounds: int = Field(default=12, ge=2, le=1000, description="how often the same edits are made")


class RetentionSettings(RoundsSettings):
    """`collab experiment retention`."""

    edits_per_party: int = Field(default=2, ge=1, le=100_000, description="edits of each party in each round")
    rounds: int = Field(default=60, ge=1, le=1000, description="how many rounds")


class OverlapSettings(ManyRoundsSettings):
    """`collab experiment overlap`."""

    rounds: int = Field(default=4, ge=2, le=1000, description="how many rounds")
    copies: int = Field(
        default=4, ge=2, le=1000, description="parties that hold an overlapping edit in its round; two beside it"
    )

    @model_validator(mode="after")
    def _others_there(self) -> OverlapSettings:
        if self.copies > self.parties:
            raise ValueError(f"{self.copies} copies of a fact are more than {self.parties} parties can hold")
        return self
