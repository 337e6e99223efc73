"""A client that has joined, put together: its model in memory, its threads running, its loop ready."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from collabedit.client.config import ClientConfig
from collabedit.client.daemon import Daemon
from collabedit.client.edit_file import FileFollower
from collabedit.client.equipment import Equipment
from collabedit.client.federation import Federation
from collabedit.client.intake import Intake
from collabedit.client.loading import load_model
from collabedit.client.model_version import Priors, VersionedModel
from collabedit.client.news import Changes, News
from collabedit.client.report import write_report
from collabedit.client.snapshot import Snapshot
from collabedit.client.state import ClientState
from collabedit.client.state_folder import StateFolder
from collabedit.client.transfer import download
from collabedit.client.voice import Voice
from collabedit.client.workshop import Workshop
from collabedit.common.blinding import FederationKey
from collabedit.common.covariance_file import CovarianceFile
from collabedit.common.digests import check_digest
from collabedit.common.edits import Edit
from collabedit.common.model_folder import ModelFolder
from collabedit.common.settings import FederationSettings


@dataclass(frozen=True)
class Crew:
    """What a client that has joined works with. Importing this module costs seconds: torch comes with it.

    key: what its claims are blinded under; None where the federation compares none. padding: public facts that a batch
    may be filled up with.
    """

    config: ClientConfig
    settings: FederationSettings
    folder: StateFolder
    state: ClientState
    federation: Federation
    voice: Voice
    key: FederationKey | None = None
    padding: tuple[Edit, ...] = ()

    def fetch(self, digest: str) -> Path:
        """The file of a content address, downloaded if it is not there."""
        target = self.folder.blobs / check_digest(digest)
        return download(self.federation.connection, digest, target, patience=self.federation.patience)

    @contextmanager
    def working(self, folder: ModelFolder, covariance: Path | None, first: Snapshot) -> Iterator[Daemon]:
        """The client with its model loaded, its edits taken in, and its threads running.

        covariance: C0's file; None where the federation's settings need none here and there is none.
        """
        with ExitStack() as stack:
            changes = Changes()
            news = News(self.federation, first, changes, self.voice.say)
            stack.callback(news.stop)
            news.start()
            model = self._load(folder)
            workshop = self._workshop(model, covariance)
            intake = self._intake(workshop)
            keys = intake.start()
            if self.config.forgotten == "resubmit":
                self.state.resubmit_forgotten()
            if not self.config.once:
                follower = FileFollower(self.config.edits, changes.ring)
                stack.callback(follower.stop)
                follower.start()
            yield self._daemon(model, workshop, news, changes, intake, keys)

    def _load(self, folder: ModelFolder) -> VersionedModel:
        self.voice.say(f"loading {folder.name} on {self.config.device}")
        loaded = load_model(folder, device=self.config.device, dtype=self.config.model_dtype)
        return VersionedModel(loaded, self.settings, self.fetch)

    def _workshop(self, model: VersionedModel, covariance: Path | None) -> Workshop:
        priors = Priors(self.settings, CovarianceFile.open(covariance), model) if covariance else None
        return Workshop(
            model,
            self.settings,
            priors,
            targets=self.folder.targets,
            outbox=self.folder.outbox,
            batch_tokens=self.config.batch_tokens,
            say=self.voice.say,
        )

    def _intake(self, workshop: Workshop) -> Intake:
        return Intake(
            self.config.edits,
            self.state,
            check=workshop.check,
            skip_invalid=self.config.skip_invalid,
            say=self.voice.say,
        )

    def _daemon(
        self,
        model: VersionedModel,
        workshop: Workshop,
        news: News,
        changes: Changes,
        intake: Intake,
        keys: list[str],
    ) -> Daemon:
        tools = Equipment(
            settings=self.settings,
            folder=self.folder,
            state=self.state,
            federation=self.federation,
            model=model,
            workshop=workshop,
            news=news,
            intake=intake,
            voice=self.voice,
            batch_tokens=self.config.batch_tokens,
            key=self.key,
            skip_known=self.config.skip_known,
            forgotten=self.config.forgotten,
            retention_sample=self.config.retention_sample,
            padding=self.padding,
        )
        return Daemon(self.config, tools, changes, keys=keys, on_result=partial(write_report, self.config.report))
