"""What a client's steps work with, and what its process remembers from one step to the next."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from collabedit.client.answers import TOKENS
from collabedit.client.federation import Federation
from collabedit.client.intake import Intake
from collabedit.client.model_version import VersionedModel
from collabedit.client.news import News
from collabedit.client.snapshot import Outcome
from collabedit.client.state import ClientState
from collabedit.client.state_folder import StateFolder
from collabedit.client.targets import Targets
from collabedit.client.voice import Voice
from collabedit.client.workshop import Workshop
from collabedit.common.errors import ContributionError
from collabedit.common.settings import FederationSettings


class WorldMovedError(Exception):
    """The round went on without the step under way; what follows is for `decide` to say."""


@dataclass(frozen=True)
class Equipment:
    """One client's ledger, model and way to the server."""

    settings: FederationSettings
    folder: StateFolder
    state: ClientState
    federation: Federation
    model: VersionedModel
    workshop: Workshop
    news: News
    intake: Intake
    voice: Voice
    batch_tokens: int | None

    @property
    def scoring_tokens(self) -> int:
        """Most padded tokens of a pass that scores."""
        return self.batch_tokens or TOKENS

    def outbox(self, digest: str) -> Path:
        """Where a contribution lies until its round is settled."""
        return self.folder.outbox / digest


@dataclass
class Course:
    """What one process remembers; a kill loses it, and nothing with it.

    attempt: of the round that its targets and contributions are for. shut: a round that did not take us in. worked_in:
    the last round that this process did something in. held_back: edits that are not tried again before the file has
    changed. lost: how a round that we worked in ended without our edits; refused: why our contribution was; None while
    nothing of the kind happened. told: lines about rounds just scored.
    """

    attempt: int = 0
    targets: Targets | None = None
    shut: int | None = None
    worked_in: int | None = None
    held_back: frozenset[str] = frozenset()
    lost: Outcome | None = None
    refused: ContributionError | None = None
    told: list[str] = field(default_factory=list)

    def forget_round(self) -> None:
        """The round is over for us."""
        self.targets, self.attempt = None, 0
