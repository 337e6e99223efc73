"""What a client's steps work with, and what its process remembers from one step to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from collabedit.client.answers import TOKENS
from collabedit.client.augment import augmented
from collabedit.client.edit_life import LedgerEntry
from collabedit.client.federation import Federation
from collabedit.client.intake import Intake
from collabedit.client.metrics import Scores, score
from collabedit.client.model_version import VersionedModel
from collabedit.client.news import News
from collabedit.client.padding import pads
from collabedit.client.screening import answered, bare
from collabedit.client.snapshot import Outcome
from collabedit.client.state import ClientState
from collabedit.client.state_folder import StateFolder
from collabedit.client.targets import Targets
from collabedit.client.voice import Voice
from collabedit.client.workshop import Workshop
from collabedit.common.blinding import Claim, FederationKey
from collabedit.common.edits import Edit
from collabedit.common.errors import BadEditsError, ContributionError
from collabedit.common.settings import FederationSettings


class WorldMovedError(Exception):
    """The round went on without the step under way; what follows is for `decide` to say."""


@dataclass(frozen=True)
class Equipment:
    """One client's ledger, model and way to the server.

    key: what claims are blinded under, None where the federation compares none. skip_known: whether waiting edits are
    screened. forgotten: what becomes of edits that hold no longer. retention_sample: the most that are scored again on
    a version. padding: public facts that may fill a batch up.
    """

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
    key: FederationKey | None = None
    skip_known: bool = True
    forgotten: Literal["tell", "resubmit"] = "tell"
    retention_sample: int = 200
    padding: Sequence[Edit] = ()

    @property
    def key_check(self) -> str:
        """Of the federation key; "" without one."""
        return self.key.check if self.key is not None else ""

    def claims(self, entries: Sequence[LedgerEntry]) -> list[Claim]:
        """The blinded names of edits, which the ledger remembers from now on; none without a key."""
        if self.key is None:
            return []
        claims = [self.key.claim(each.edit) for each in entries]
        self.state.note_claims([(claim, each.key) for claim, each in zip(claims, entries, strict=True)])
        return claims

    def edits_of(self, entries: Sequence[LedgerEntry]) -> list[Edit]:
        """What is contributed for ledger entries: each edit, and of a re-submitted one its augmentation, each once."""
        edits = {each.edit.key: each.edit for each in entries}
        further = [edit for each in entries if each.augmented for edit in augmented(each.edit)[1:]]
        return list((edits | {edit.key: edit for edit in further if self._can_be_taken(edit)}).values())

    def _can_be_taken(self, edit: Edit) -> bool:
        """A paraphrase may be longer than the model reads, though the edit is not."""
        try:
            self.workshop.check(edit)
        except BadEditsError:
            return False
        return True

    def lacking(self, entries: Sequence[LedgerEntry], padding: int = 0) -> int:
        """How many edits more a round takes than these and so many public facts are."""
        return max(0, self.settings.min_edits - len(self.edits_of(entries)) - padding)

    def pads(self, entries: Sequence[LedgerEntry]) -> list[Edit]:
        """Public facts that bring a batch to what a round takes, as far as the model's present weights answer them."""
        if not entries or not self.padding:
            return []
        ours = [each.edit for each in self.state.ledger()]
        least = self.settings.min_edits
        return pads(self.padding, self.edits_of(entries), least, self._answers, ours=ours)

    def _answers(self, facts: Sequence[Edit]) -> list[bool]:
        scores = self.score([bare(each) for each in facts], "looking for facts that the model knows")
        return [answered(each) for each in scores.edits]

    def score(self, edits: Sequence[Edit], what: str) -> Scores:
        """How the model's present weights do on edits; what: said while it lasts."""
        if not edits:
            return score(self.model.loaded, edits)
        with self.voice.progress(what) as progress:
            return score(self.model.loaded, edits, batch=self.batch_tokens or TOKENS, on_progress=progress)

    def contributed(self, round_: int) -> list[Edit]:
        """Every edit of our contribution to a round: the batch's, then the public facts that fill it up."""
        return [*self.edits_of(self.state.batch()), *self.state.padding(round_)]

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
