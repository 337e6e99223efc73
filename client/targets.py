"""Target vectors z: what the hidden state at the subject's last token should be, for each edit (algorithm step 2)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor

from collabedit.client.loading import LoadedModel
from collabedit.client.lookup import drift_row, rewriting_rows
from collabedit.client.passes import Extent, groups
from collabedit.client.search import Found, Plan, search
from collabedit.client.weights import weights_digest
from collabedit.common.edits import Edit
from collabedit.common.errors import BadModelError, UsageError
from collabedit.common.hparams import HyperParameters

ENGINE: Final = 1  # raised when the search would find another z for the same edit
TOKENS: Final = 2048  # padded tokens of a batch's full pass; bounds the memory of the search
SEARCHED_WITH: Final = (
    "v_num_grad_steps",
    "v_lr",
    "v_loss_layer",
    "v_weight_decay",
    "clamp_norm_factor",
    "kl_factor",
)


class TargetCache(Protocol):
    """Where z vectors are kept; a dict is one, `TargetStore` one that survives a kill."""

    def get(self, key: str, /) -> Found | None:
        """What was kept under a key, or None."""

    def __setitem__(self, key: str, found: Found, /) -> None:
        """Keeps one result."""


@dataclass(frozen=True)
class Targets:
    """z: [d_model, M], float32 (float64 for a model in float64), on the CPU, in the edits' order;
    loss: at z, [M]; steps: Adam's, [M]; reused: how many came from the cache.
    """

    z: Tensor
    loss: tuple[float, ...]
    steps: tuple[int, ...]
    reused: int = 0

    def only(self, edits: Sequence[int]) -> Targets:
        """The targets of some of the edits, by their numbers."""
        return Targets(self.z[:, list(edits)], tuple(self.loss[i] for i in edits), tuple(self.steps[i] for i in edits))

    @classmethod
    def joined(cls, parts: Sequence[Targets]) -> Targets:
        """The targets of several parties' edits, one after the other."""
        return cls(
            torch.cat([part.z for part in parts], dim=1),
            tuple(loss for part in parts for loss in part.loss),
            tuple(steps for part in parts for steps in part.steps),
            sum(part.reused for part in parts),
        )


def target_keys(
    loaded: LoadedModel, edits: Sequence[Edit], hparams: HyperParameters, templates: Sequence[Sequence[str]]
) -> list[str]:
    """The cache's keys: SHA-256 (hex) of everything that z depends on.

    The engine's version, the model and its dtype, the present edited weights, the search's hyperparameters, the z
    layer, the templates, and the edit's prompt, subject and target.
    """
    names = [
        f"{(hparams.rewrite_module_tmp or loaded.architecture.rewrite_module).format(i)}.weight" for i in hparams.layers
    ]
    common = {
        "engine": ENGINE,
        "model": loaded.fingerprint,
        "dtype": str(loaded.dtype),
        "weights": weights_digest(loaded, names),
        "layer": hparams.layers[-1],
        "hparams": {name: getattr(hparams, name) for name in SEARCHED_WITH},
        "templates": [list(group) for group in templates],
    }
    parts = [json.dumps({**common, "edit": edit.key}, sort_keys=True, ensure_ascii=False) for edit in edits]
    return [hashlib.sha256(part.encode()).hexdigest() for part in parts]


def check_search(loaded: LoadedModel, hparams: HyperParameters, templates: Sequence[Sequence[str]]) -> None:
    """Raises BadModelError where the model lacks the layers, UsageError where the settings of the search cannot be."""
    depth, layer = len(loaded.blocks), hparams.layers[-1]
    if layer >= depth:
        raise BadModelError(
            f"{loaded.folder.name} has {depth} layers, from 0 to {depth - 1}: there is no layer {layer}"
        )
    if hparams.v_loss_layer is not None and not layer <= hparams.v_loss_layer < depth:
        raise UsageError(
            f"v_loss_layer must lie between the last edited layer, {layer}, and the model's last, {depth - 1}"
        )
    if not templates or not all(templates):
        raise UsageError("the context templates have an empty group", mend='the least is [["{}"]]')


@dataclass
class _Progress:
    """Steps of the search, of all edits together; those that an edit did not need count as done."""

    report: Callable[[int, int], None] | None
    total: int
    done: int = 0

    def add(self, steps: int) -> None:
        self.done += steps
        if self.report is not None:
            self.report(self.done, self.total)


def find_targets(
    loaded: LoadedModel,
    edits: Sequence[Edit],
    hparams: HyperParameters,
    templates: Sequence[Sequence[str]],
    *,
    on_progress: Callable[[int, int], None] | None = None,
    store: TargetCache | None = None,
    batch: int = TOKENS,
) -> Targets:
    """z of each edit for the model's present weights: h0 + δ with the δ that makes the target likely (step 2).

    Edits are searched in batches of at most `batch` padded tokens; z depends on the edit alone, whatever its batch, but
    for rounding. on_progress: called with the steps done and the most that may be needed, of all edits together.
    store: results are looked up in it and put into it as soon as each is found, so that a search that was killed goes
    on where it was. Raises BadModelError, UsageError or BadEditsError for what cannot be searched.
    """
    check_search(loaded, hparams, templates)
    keys = target_keys(loaded, edits, hparams, templates) if store is not None else [""] * len(edits)
    found = {
        index: kept for index, key in enumerate(keys) if store is not None and (kept := store.get(key)) is not None
    }
    reused = len(found)
    most = hparams.v_num_grad_steps
    progress = _Progress(on_progress, most * len(edits))
    progress.add(most * reused)
    missing = [index for index in range(len(edits)) if index not in found]
    plans = [Plan(rewriting_rows(loaded, edits[i], templates), drift_row(loaded, edits[i])) for i in missing]
    for members in groups([Extent.of(plan.rewriting) for plan in plans], batch):

        def keep(number: int, result: Found, members: list[int] = members) -> None:
            index = missing[members[number]]
            found[index] = _checked(result, edits[index])
            progress.add(most - result.steps - 1)
            if store is not None:
                store[keys[index]] = result

        search(loaded, [plans[member] for member in members], hparams, on_found=keep, on_step=progress.add)
    ordered = [found[index] for index in range(len(edits))]
    z = torch.stack([each.z for each in ordered], dim=1) if ordered else torch.empty(_width(loaded), 0)
    return Targets(z, tuple(each.loss for each in ordered), tuple(each.steps for each in ordered), reused)


def _checked(found: Found, edit: Edit) -> Found:
    if not bool(torch.isfinite(found.z).all()):
        raise BadModelError(
            f'the search for z of "{edit.text}" left the finite numbers',
            mend="are the model's weights finite? A smaller v_lr may help",
        )
    return found


def _width(loaded: LoadedModel) -> int:
    return int(loaded.model.get_input_embeddings().weight.shape[1])
