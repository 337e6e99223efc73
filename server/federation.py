"""What the federation is: fixed at the server's first start, compared at each later one.

A setting that is not given keeps its value; one that is given and differs is refused by name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog
from safetensors import SafetensorError, safe_open

from collabedit.common.errors import BadFileError, CollabEditError, MismatchError, StateError, UsageError
from collabedit.common.fingerprint import TOKENIZER_FILES, covariance_fingerprint, model_fingerprint
from collabedit.common.hparams import HyperParameters
from collabedit.common.hparams_file import read_hparams_file
from collabedit.common.methods import check_method
from collabedit.common.model_folder import ModelFolder, bundled_models, find_model
from collabedit.common.pairs import check_extent, exact_method
from collabedit.common.presets import choose_hparams
from collabedit.common.settings import FederationSettings
from collabedit.server.blobs import BlobStore
from collabedit.server.config import ServerConfig
from collabedit.server.store import Store

LOG = structlog.get_logger()
PLAIN_SETTINGS: Final = (
    "schedule", "spread", "residual_shares", "editor", "method", "encoding", "dtype", "beta0", "beta1", "min_edits",
    "detection",
)  # fmt: skip
ANOTHER: Final = "leave it as it was, or found another federation with another --state"


@dataclass(frozen=True)
class Federation:
    """The federation's settings, and where the server has its model and covariance."""

    settings: FederationSettings
    model: ModelFolder
    covariance: Path

    @property
    def exchanges(self) -> tuple[tuple[str, ...], ...]:
        """The weights that each exchange of a round carries."""
        weights = self.settings.edited_weights
        return tuple((each,) for each in weights) if self.settings.schedule == "layer-sync" else (weights,)


def prepare(config: ServerConfig, store: Store, blobs: BlobStore, name: str) -> Federation:
    """Founds the federation at the first start; later compares what is given with what it is.

    name: the identity of a federation that is founded now. Raises MismatchError or StateError that names the setting
    that differs, UsageError for one that lacks, BadModelError and BadFileError for files that are not what they should
    be.
    """
    stored = store.federation()
    federation = _found(config, store, blobs, name) if stored is None else _reopen(config, store, blobs, stored)
    lossy = check_method(federation.settings.method, federation.settings.editor)
    if lossy:
        LOG.warning(lossy)
    return federation


def _reopen(config: ServerConfig, store: Store, blobs: BlobStore, stored: tuple[str, str]) -> Federation:
    try:
        settings, sources = FederationSettings.model_validate_json(stored[0]), json.loads(stored[1])
    except ValueError as error:
        raise StateError(
            f"{config.state}: the federation's settings cannot be read", mend="restore the state"
        ) from error
    return _resume(config, store, blobs, settings, sources)


def _found(config: ServerConfig, store: Store, blobs: BlobStore, name: str) -> Federation:
    model = find_model(config.model)
    hparams = _hparams(config.hparams, model)
    weights = model.edited_weights(hparams)
    covariance = _covariance(config.covariance, model, weights)
    settings = FederationSettings(
        federation=name,
        model_name=model.name,
        model_fingerprint=_model_fingerprint(model, store),
        covariance_fingerprint=_covariance_fingerprint(covariance, store),
        covariance_digest=_covariance_blob(covariance, store, blobs),
        edited_weights=weights,
        hparams=hparams,
        context_templates=_templates(config.context_templates, model),
        **{each: getattr(config, each) for each in PLAIN_SETTINGS if each != "method"},
        method=config.method or exact_method(config.editor),
    )
    _check_editor(settings)
    _check_policy(config, settings)
    store.found(settings.model_dump_json(), _sources(config.model, covariance))
    return Federation(settings, model, covariance)


def _check_editor(settings: FederationSettings) -> None:
    """Raises UsageError for a merge method of another editor, and for ROME of what can be more than one edit."""
    check_method(settings.method, settings.editor)
    check_extent(settings.editor, layers=len(settings.edited_weights))
    if settings.editor == "rome" and settings.min_edits > 1:
        raise UsageError(
            f"--editor rome takes exactly one edit, --min-edits {settings.min_edits} asks for more",
            mend="give --editor emmet; or --min-edits 1, which shows the edit's key to the server",
        )


def _check_policy(config: ServerConfig, settings: FederationSettings) -> None:
    """Raises UsageError for a policy of conflicts in a federation that looks for none."""
    if settings.detection == "off" and config.model_fields_set & {"conflict_policy", "priority"}:
        raise UsageError(
            f"--conflict-policy {config.conflict_policy}: this federation compares no edits (its detection is off)",
            mend="leave it out, or found a federation with --detection pre-merge or on-failure",
        )


def _resume(
    config: ServerConfig, store: Store, blobs: BlobStore, settings: FederationSettings, sources: dict[str, Any]
) -> Federation:
    given = config.model_fields_set
    named = config.model if "model" in given else str(sources["model"])
    model = find_model(named)
    weights = settings.edited_weights
    usual = Path(sources["covariance"])
    covariance = _covariance(config.covariance or (usual if usual.is_file() else None), model, weights)
    found: dict[str, Any] = {each: getattr(config, each) for each in PLAIN_SETTINGS if each in given}
    if config.hparams:
        found["hparams"] = read_hparams_file(config.hparams)
    if config.context_templates:
        found["context_templates"] = _templates(config.context_templates, model)
    for each, value in found.items():
        _same(each, value, getattr(settings, each))
    _check_policy(config, settings)
    _same_file("model", model.path, _model_fingerprint(model, store), settings.model_fingerprint)
    _same_file("covariance", covariance, _covariance_fingerprint(covariance, store), settings.covariance_fingerprint)
    if settings.covariance_digest not in blobs:
        _covariance_blob(covariance, store, blobs)
    store.found(settings.model_dump_json(), _sources(named, covariance))
    return Federation(settings, model, covariance)


def _same(name: str, given: Any, fixed: Any) -> None:
    if given != fixed:
        plain = isinstance(given, str | int | float)
        detail = (
            f" {given}: the federation was founded with {fixed}"
            if plain
            else ": not what the federation was founded with"
        )
        raise MismatchError(f"--{name.replace('_', '-')}{detail}", mend=ANOTHER)


def _same_file(name: str, path: Path, found: str, fixed: str) -> None:
    if found != fixed:
        what = f"--{name} {path}: its fingerprint is {found}, the federation was founded with {fixed}"
        raise MismatchError(what, mend=ANOTHER)


def _sources(model: str, covariance: Path) -> str:
    """Where the files are, so that a later start from another folder finds them."""
    place = model if model in bundled_models() else str(Path(model).resolve())
    return json.dumps({"model": place, "covariance": str(covariance.resolve())})


def _hparams(file: Path | None, model: ModelFolder) -> HyperParameters:
    if file is not None:
        return read_hparams_file(file)
    chosen = choose_hparams(model)
    if chosen.note:
        LOG.warning(chosen.note)
    return chosen.hparams


def _templates(file: Path | None, model: ModelFolder) -> tuple[tuple[str, ...], ...]:
    if file is None:
        return model.context_templates or (("{}",),)
    try:
        read = json.loads(file.read_text())
        groups = tuple(tuple(str(text) for text in group) for group in read)
    except OSError as error:
        raise UsageError(f"--context-templates {file}: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise BadFileError(f"{file}: {error}", mend="a JSON list of lists of texts that hold {} once") from error
    if not groups or any(text.count("{}") != 1 for group in groups for text in group):
        raise BadFileError(f"{file}: not a list of lists of texts", mend="each text holds {} once")
    return groups


def _covariance(given: Path | None, model: ModelFolder, weights: Iterable[str]) -> Path:
    file = given or model.covariance
    if file is None:
        raise UsageError(
            f"{model.path} brings no covariance", mend="give --covariance; `collab covariance` measures one"
        )
    if not file.is_file():
        raise UsageError(f"--covariance {file}: no such file")
    try:
        with safe_open(file, framework="np") as tensors:
            names = set(tensors.keys())
            for weight in weights:
                name, d_in = f"{weight}.covariance", model.shape(weight)[1]
                shape = tuple(tensors.get_slice(name).get_shape()) if name in names else None
                if shape != (d_in, d_in):
                    found = f"has shape {shape}" if shape else "is not there"
                    raise BadFileError(f"{file}: {name} {found}; needed: {(d_in, d_in)}", mend="`collab covariance`")
    except (OSError, SafetensorError) as error:
        raise BadFileError(
            f"{file}: {error}", mend="the file is truncated or not safetensors: copy it again"
        ) from error
    return file


def _model_fingerprint(model: ModelFolder, store: Store) -> str:
    files = {*model.files.values(), model.path / "config.json", *(model.path / each for each in TOKENIZER_FILES)}
    return _remembered(store, "model", files, lambda: model_fingerprint(model))


def _covariance_fingerprint(file: Path, store: Store) -> str:
    return _remembered(store, "covariance", [file], lambda: covariance_fingerprint(file))


def _covariance_blob(file: Path, store: Store, blobs: BlobStore) -> str:
    digest = _remembered(store, "covariance-blob", [file], lambda: blobs.add_file(file))
    return digest if digest in blobs else blobs.add_file(file)


def _remembered(store: Store, what: str, files: Iterable[Path], compute: Callable[[], str]) -> str:
    """What `compute` found when the files had the sizes, times and inodes that they have now."""
    try:
        stats = [(str(each.resolve()), each.stat()) for each in sorted(files) if each.is_file()]
    except OSError as error:
        raise CollabEditError(f"{error.filename}: {error.strerror}") from error
    told = json.dumps([(name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in stats])
    stamp = hashlib.sha256(told.encode()).hexdigest()
    known = store.stamped(what, stamp)
    if known is None:
        known = compute()
        store.stamp(what, stamp, known)
    return known
