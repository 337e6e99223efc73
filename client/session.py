"""From a command line to a client at work: every check in the order that lets nothing be sent before it holds."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from collabedit.client.config import ClientConfig
from collabedit.client.connection import DEFAULT_SERVER, Connection, connect, credentials_folder
from collabedit.client.daemon import Daemon
from collabedit.client.edit_file import FileFollower, demand_clean, read_edits
from collabedit.client.federation import Federation
from collabedit.client.intake import Intake
from collabedit.client.model_version import Priors, VersionedModel
from collabedit.client.news import FIRST_PAUSE, LONGEST_PAUSE, Changes, News
from collabedit.client.snapshot import Snapshot
from collabedit.client.state import ClientState
from collabedit.client.state_folder import StateFolder
from collabedit.client.steps import Steps
from collabedit.client.transfer import download
from collabedit.client.voice import Voice
from collabedit.client.workshop import Workshop, needs_prior
from collabedit.common.covariance_file import CovarianceFile
from collabedit.common.credentials import Credentials
from collabedit.common.digests import check_digest
from collabedit.common.errors import BadModelError, MismatchError, UnreachableError
from collabedit.common.files import write_durably
from collabedit.common.fingerprint import covariance_fingerprint, model_fingerprint
from collabedit.common.model_folder import ModelFolder, bundled_models, find_model
from collabedit.common.settings import FederationSettings

PATIENCE: Final = 30.0  # seconds that one call waits for a server that is away, before the loop looks around again


def run_client(config: ClientConfig, voice: Voice) -> dict[str, Any]:
    """Runs one client: with `--once` until its edits are merged, else until it is stopped. Returns the result.

    Raises CollabEditError: bad edits (before anything else is touched), state, identity, server, fingerprints, round.
    """
    parsed = read_edits(config.edits)
    if not config.skip_invalid:
        demand_clean(config.edits, parsed)
    folder = config.folder
    with folder.locked(), ClientState(folder.ledger) as state, _connected(config, folder) as connection:
        federation = Federation(connection, patience=PATIENCE)
        settings = _greet(federation, config, voice)
        state.demand(settings.federation)
        model = _model_folder(config, settings, voice)
        covariance = config.covariance or model.covariance
        first = _join(federation, settings, state, model, covariance)
        prepared = _Prepared(config, settings, folder, state, federation, voice)
        if needs_prior(settings) and covariance is None:
            covariance = prepared.fetch_covariance()
        with prepared.working(model, covariance, first) as daemon:
            return daemon.run()


@contextmanager
def _connected(config: ClientConfig, folder: StateFolder) -> Iterator[Connection]:
    """The connection that the settings and the enrolment lead to. Raises IdentityError where there is no enrolment."""
    credentials = None if config.insecure else Credentials.load(credentials_folder(folder.path))
    server = config.server or (credentials.server if credentials else "") or DEFAULT_SERVER
    with connect(server, credentials, client_id=config.client_id or "") as connection:
        yield connection


def _greet(federation: Federation, config: ClientConfig, voice: Voice) -> FederationSettings:
    """The federation's settings. A daemon waits for a server that is away; `--once` raises UnreachableError."""
    told, pause = False, FIRST_PAUSE
    while True:
        try:
            return federation.settings(patience=0)
        except UnreachableError as error:
            if config.once:
                raise
            if not told:
                voice.say(f"{error.what}; waiting for it")
            told = True
            threading.Event().wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


def _model_folder(config: ClientConfig, settings: FederationSettings, voice: Voice) -> ModelFolder:
    """The model to edit, compared with the federation's. Raises BadModelError, MismatchError."""
    if config.model is None and settings.model_name not in bundled_models():
        raise BadModelError(
            f"the federation edits the model {settings.model_name}, which is not bundled",
            mend="give the folder of the same model with --model",
        )
    folder = find_model(config.model or settings.model_name)
    voice.say(f"reading {folder.path}")
    own = model_fingerprint(folder)
    if own != settings.model_fingerprint:
        raise MismatchError(
            f"{folder.path}: the model's fingerprint is {own}, the federation's {settings.model_fingerprint}",
            mend=f"get the same files of {settings.model_name} that the server has",
        )
    return folder


def _join(
    federation: Federation,
    settings: FederationSettings,
    state: ClientState,
    model: ModelFolder,
    covariance: Path | None,
) -> Snapshot:
    """The handshake; the state folder is the federation's from here on. Raises MismatchError, StateError."""
    own = covariance_fingerprint(covariance) if covariance else ""
    _compare_covariance(covariance, own, settings)
    snapshot = federation.join(settings.model_fingerprint, own, state.federation or "")
    state.bind(settings.federation)
    return snapshot


def _compare_covariance(file: Path | None, own: str, settings: FederationSettings) -> None:
    if file is not None and own != settings.covariance_fingerprint:
        raise MismatchError(
            f"{file}: the covariance's fingerprint is {own}, the federation's {settings.covariance_fingerprint}",
            mend="take the federation's file; it is fetched where neither --covariance nor the model's folder has one",
        )


@dataclass(frozen=True)
class _Prepared:
    """A client that has joined, before its model is in memory."""

    config: ClientConfig
    settings: FederationSettings
    folder: StateFolder
    state: ClientState
    federation: Federation
    voice: Voice

    def fetch(self, digest: str) -> Path:
        """The file of a content address, downloaded if it is not there."""
        target = self.folder.blobs / check_digest(digest)
        return download(self.federation.connection, digest, target, patience=self.federation.patience)

    def fetch_covariance(self) -> Path:
        """The federation's covariance file, kept apart from the weights that come and go."""
        digest = check_digest(self.settings.covariance_digest)
        target = self.folder.covariance / digest
        with self.voice.progress("downloading the covariance") as progress:
            connection = self.federation.connection
            file = download(connection, digest, target, progress=progress, patience=self.federation.patience)
        _compare_covariance(file, covariance_fingerprint(file), self.settings)
        return file

    @contextmanager
    def working(self, folder: ModelFolder, covariance: Path | None, first: Snapshot) -> Iterator[Daemon]:
        """The client with its model loaded, its edits taken in, and its threads running."""
        with ExitStack() as stack:
            changes = Changes()
            news = News(self.federation, first, changes, self.voice.say)
            stack.callback(news.stop)
            news.start()
            model = self._load(folder)
            workshop = self._workshop(model, covariance)
            intake = self._intake(workshop)
            keys = intake.start()
            if not self.config.once:
                follower = FileFollower(self.config.edits, changes.ring)
                stack.callback(follower.stop)
                follower.start()
            yield self._daemon(model, workshop, news, changes, intake, keys)

    def _load(self, folder: ModelFolder) -> VersionedModel:
        from collabedit.client.loading import load_model

        self.voice.say(f"loading {folder.name} on {self.config.device}")
        loaded = load_model(folder, device=self.config.device)
        return VersionedModel(loaded, self.settings, self.fetch)

    def _workshop(self, model: VersionedModel, covariance: Path | None) -> Workshop:
        priors = None
        if needs_prior(self.settings) and covariance is not None:
            priors = Priors(self.settings, CovarianceFile.open(covariance), model)
        return Workshop(
            model,
            self.settings,
            priors,
            targets=self.folder.targets,
            outbox=self.folder.outbox,
            batch_tokens=self.config.batch_tokens,
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
        steps = Steps(
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
        )
        return Daemon(
            self.config,
            self.settings,
            state=self.state,
            federation=self.federation,
            steps=steps,
            news=news,
            changes=changes,
            intake=intake,
            voice=self.voice,
            keys=keys,
            on_result=_reporter(self.config.report),
        )


def _reporter(file: Path | None) -> Callable[[dict[str, Any]], None]:
    """Writes each result to the report's file, where one is wanted."""

    def write(result: dict[str, Any]) -> None:
        if file is not None:
            write_durably(file, json.dumps(result, ensure_ascii=False, indent=1).encode() + b"\n")

    return write
