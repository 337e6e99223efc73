"""From a command line to a client at work: every check in the order that lets nothing be sent before it holds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from collabedit.client.backoff import NEWS
from collabedit.client.config import ClientConfig
from collabedit.client.connection import DEFAULT_SERVER, Connection, connect, credentials_folder
from collabedit.client.edit_file import demand_clean, read_edits
from collabedit.client.federation import Federation
from collabedit.client.federation_key import GET_ONE, key_file
from collabedit.client.federation_key import load as load_key
from collabedit.client.intake import consistent
from collabedit.client.padding import read_padding
from collabedit.client.renewal import renewing
from collabedit.client.report import write_report
from collabedit.client.snapshot import Snapshot
from collabedit.client.state import ClientState
from collabedit.client.state_folder import StateFolder
from collabedit.client.transfer import download
from collabedit.client.voice import Voice
from collabedit.common.blinding import FederationKey
from collabedit.common.credentials import Credentials
from collabedit.common.digests import check_digest
from collabedit.common.edits import Edit
from collabedit.common.errors import BadModelError, IdentityError, MismatchError, UnreachableError
from collabedit.common.fingerprint import covariance_fingerprint, model_fingerprint
from collabedit.common.model_folder import ModelFolder, bundled_models, find_model
from collabedit.common.settings import FederationSettings

Result = TypeVar("Result")

PATIENCE: Final = 30.0  # seconds that one call waits for a server that is away, before the loop looks around again


def run_client(config: ClientConfig, voice: Voice) -> dict[str, Any]:
    """Runs one client: with `--once` until its edits are merged, else until it is stopped. Returns the result.

    Raises CollabEditError: bad edits (before anything else is touched), state, identity, server, fingerprints, round.
    """
    parsed, padding = read_edits(config.edits), read_padding(config.padding, skip_invalid=config.skip_invalid)
    if not config.skip_invalid:
        demand_clean(config.edits, parsed)
    folder = config.folder
    with folder.locked(), ClientState(folder.ledger) as state:
        if not config.skip_invalid:
            demand_clean(config.edits, consistent(parsed, state, skip_invalid=False))
        with _connected(config, folder, voice) as connection:
            return _take_part(config, voice, state, Federation(connection, patience=PATIENCE), padding)


def _take_part(
    config: ClientConfig, voice: Voice, state: ClientState, federation: Federation, padding: tuple[Edit, ...]
) -> dict[str, Any]:
    """Everything from the first call on."""
    settings = _until_there(config, voice, lambda: federation.settings(patience=0))
    state.demand(settings.federation)
    key = claims_key(config, settings)
    if not config.skip_known:
        state.reopen_known()
    model = _model_folder(config, settings, voice)
    covariance = config.covariance or model.covariance
    own = _covariance_fingerprint(covariance, settings)
    first = _until_there(config, voice, lambda: _join(federation, settings, state, own, key))
    if settings.client_needs_prior and covariance is None:
        covariance = _until_there(config, voice, lambda: _fetch_covariance(federation, settings, config.folder, voice))
    from collabedit.client.crew import Crew

    crew = Crew(config, settings, config.folder, state, federation, voice, key, padding)
    with crew.working(model, covariance, first) as daemon:
        try:
            return daemon.run()
        finally:
            if config.once:
                write_report(config.report, daemon.result())


@contextmanager
def _connected(config: ClientConfig, folder: StateFolder, voice: Voice) -> Iterator[Connection]:
    """The connection that the settings and the enrolment lead to; its certificate is renewed while it lasts.

    Raises IdentityError where there is no enrolment.
    """
    credentials = None if config.insecure else Credentials.load(credentials_folder(folder.path))
    server = config.server or (credentials.server if credentials else "") or DEFAULT_SERVER
    with connect(server, credentials, client_id=config.client_id or "") as connection:
        if credentials is None:
            yield connection
            return
        with renewing(connection, credentials_folder(folder.path), voice.say):
            yield connection


def _until_there(config: ClientConfig, voice: Voice, ask: Callable[[], Result]) -> Result:
    """What `ask` returns. A daemon waits for a server that is away; `--once` raises UnreachableError."""
    told, pauses = False, NEWS.pauses()
    while True:
        try:
            return ask()
        except UnreachableError as error:
            if config.once:
                raise
            if not told:
                voice.say(f"{error.what}; waiting for it")
            told = True
            threading.Event().wait(next(pauses))


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


def claims_key(config: ClientConfig, settings: FederationSettings) -> FederationKey | None:
    """The key that claims are blinded under; None where the federation compares none.

    Raises IdentityError where it is missing, MismatchError for the key of another federation.
    """
    if settings.detection == "off":
        return None
    file = key_file(config.federation_key or config.folder.path)
    held = load_key(file)
    if held is None:
        raise IdentityError(
            f"{file}: no federation key, under which this federation ({settings.detection}) compares edits",
            mend=GET_ONE,
        )
    if held.federation and held.federation != settings.federation:
        raise MismatchError(
            f"{file}: the key of the federation {held.federation}, not of {settings.federation}",
            mend="give this federation's with --federation-key",
        )
    return held.key


def _join(
    federation: Federation,
    settings: FederationSettings,
    state: ClientState,
    covariance: str,
    key: FederationKey | None,
) -> Snapshot:
    """The handshake; the state folder is the federation's from here on. Raises MismatchError, StateError."""
    check = key.check if key is not None else ""
    snapshot = federation.join(settings.model_fingerprint, covariance, state.federation or "", check)
    state.bind(settings.federation)
    return snapshot


def _covariance_fingerprint(file: Path | None, settings: FederationSettings) -> str:
    """The fingerprint of a covariance file, compared with the federation's; "" for no file. Raises MismatchError."""
    if file is None:
        return ""
    own = covariance_fingerprint(file)
    if own != settings.covariance_fingerprint:
        raise MismatchError(
            f"{file}: the covariance's fingerprint is {own}, the federation's {settings.covariance_fingerprint}",
            mend="take the federation's file; it is fetched where neither --covariance nor the model's folder has one",
        )
    return own


def _fetch_covariance(federation: Federation, settings: FederationSettings, folder: StateFolder, voice: Voice) -> Path:
    """The federation's covariance file, kept apart from the weights that come and go."""
    digest = check_digest(settings.covariance_digest)
    target = folder.covariance / digest
    with voice.progress("downloading the covariance") as progress:
        file = download(federation.connection, digest, target, progress=progress, patience=federation.patience)
    _covariance_fingerprint(file, settings)
    return file
