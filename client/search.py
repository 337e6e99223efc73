"""The search for z of one batch of edits, all at once (algorithm section 8, step 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from collabedit.client.loading import LoadedModel
from collabedit.client.lookup import Row
from collabedit.client.prefix import Prefix, prefix_of
from collabedit.common.hparams import HyperParameters

ENOUGH: Final = 0.05  # an edit whose loss is below this has found its z
ABSENT: Final = -1  # stands in the table of labels where a row has fewer than the longest


@dataclass(frozen=True)
class Plan:
    """One edit's rows: one a template, the bare prompt first; and the one that the KL term reads at its last token."""

    rewriting: tuple[Row, ...]
    drift: Row


@dataclass(frozen=True)
class Found:
    """One edit's z: [d_model], on the CPU; the loss at it, and Adam's steps that led to it."""

    z: Tensor
    loss: float
    steps: int


@dataclass(frozen=True)
class Problem:
    """The loss of n edits as a function of δ [n, d_model]; edit e's rewriting rows are e·width … (e+1)·width − 1.

    labels: [n·width, longest target], ABSENT behind each row's last; first: [n·width], the column whose logits predict
    the first label; drift: the KL rows, one an edit, of one column; p0: [n, vocabulary], log-probabilities at them for
    δ = 0, None before they are known.
    """

    rewriting: Prefix
    drift: Prefix
    labels: Tensor
    first: Tensor
    width: int
    p0: Tensor | None = None

    @property
    def undisturbed(self) -> Tensor:
        """h0: [n, d_model], of each edit's first row."""
        return self.rewriting.states[:: self.width, 0]

    def only(self, edits: Tensor) -> Problem:
        """The problem of some of the edits, by their numbers."""
        rows = (edits[:, None] * self.width + torch.arange(self.width, device=edits.device)).flatten()
        p0 = None if self.p0 is None else self.p0[edits]
        return Problem(
            self.rewriting.only(rows), self.drift.only(edits), self.labels[rows], self.first[rows], self.width, p0
        )

    def nll(self, loaded: LoadedModel, delta: Tensor) -> Tensor:
        """[n]: mean over templates of the mean over the target's tokens."""
        rows, order = torch.nonzero(self.labels != ABSENT, as_tuple=True)
        spread = delta.unsqueeze(1).expand(-1, self.width, -1).reshape(len(self.labels), -1)
        logits = self.rewriting.logits(loaded, spread, rows, self.first[rows] + order).to(delta.dtype)
        each = functional.cross_entropy(logits, self.labels[rows, order], reduction="none")
        table = torch.zeros(self.labels.shape, dtype=delta.dtype, device=delta.device)
        table = table.index_put((rows, order), each)
        rates = table.sum(1) / (self.labels != ABSENT).sum(1)
        return rates.reshape(-1, self.width).mean(1)

    def drifted(self, loaded: LoadedModel, delta: Tensor) -> Tensor:
        """[n, vocabulary]: log-probabilities at the KL rows."""
        rows = torch.arange(len(delta), device=delta.device)
        return self.drift.logits(loaded, delta, rows, torch.zeros_like(rows)).to(delta.dtype).log_softmax(-1)

    def loss(self, loaded: LoadedModel, delta: Tensor, hparams: HyperParameters) -> Tensor:
        """[n]: NLL + kl_factor · KL(p₀‖p) + wd · ‖δ‖/‖h0‖². Raises ValueError before p0 is known."""
        if self.p0 is None:
            raise ValueError("p0 is not known yet")
        drift = (self.p0.exp() * (self.p0 - self.drifted(loaded, delta))).sum(-1)
        size = self.undisturbed.to(delta.dtype).norm(dim=-1)
        decay = delta.norm(dim=-1) / size.square()
        loss: Tensor = self.nll(loaded, delta) + hparams.kl_factor * drift + hparams.v_weight_decay * decay
        return loss


@torch.no_grad()
def pose(loaded: LoadedModel, plans: Sequence[Plan], hparams: HyperParameters) -> Problem:
    """Runs the full passes over the rows of all plans and lays out their labels."""
    rows = [row for plan in plans for row in plan.rewriting]
    layer = hparams.layers[-1]
    loss_layer = len(loaded.blocks) - 1 if hparams.v_loss_layer is None else hparams.v_loss_layer
    labels = torch.full((len(rows), max(len(row.labels) for row in rows)), ABSENT, dtype=torch.int64)
    for index, row in enumerate(rows):
        labels[index, : len(row.labels)] = torch.tensor(row.labels)
    first = torch.tensor([len(row.ids) - len(row.labels) - row.subject for row in rows])
    problem = Problem(
        prefix_of(loaded, rows, layer, loss_layer),
        prefix_of(loaded, [plan.drift for plan in plans], layer, loss_layer),
        labels.to(loaded.device),
        first.to(loaded.device),
        len(plans[0].rewriting),
    )
    unmoved = torch.zeros_like(problem.undisturbed, dtype=loaded.working_dtype)
    return replace(problem, p0=problem.drifted(loaded, unmoved))


def _clamped(delta: Tensor, most: Tensor) -> Tensor:
    """δ [n, d_model], each no longer than its `most` [n]."""
    sizes = delta.norm(dim=-1)
    return torch.where((sizes > most).unsqueeze(-1), delta * (most / sizes.clamp(min=1e-30)).unsqueeze(-1), delta)


def search(
    loaded: LoadedModel,
    plans: Sequence[Plan],
    hparams: HyperParameters,
    *,
    on_found: Callable[[int, Found], None],
    on_step: Callable[[int], None],
) -> None:
    """Minimises each plan's loss over its own δ: Adam, ‖δ‖ ≤ clamp·‖h0‖ after each step, until the loss is enough.

    As in MEMIT, `v_num_grad_steps` counts evaluations of the loss: the last is not followed by a step.
    on_found: called with a plan's number and its result as soon as it is there; on_step: with the number of edits
    that took part in a step. Edits that are done leave the batch, and δ is put back to what it was after each step:
    Adam's momentum would go on moving it.
    """
    problem = pose(loaded, plans, hparams)
    start = problem.undisturbed.to(loaded.working_dtype)
    most = hparams.clamp_norm_factor * start.norm(dim=-1)
    delta = torch.zeros_like(start, requires_grad=True)
    optimiser = torch.optim.Adam([delta], lr=hparams.v_lr)
    active = torch.arange(len(plans), device=loaded.device)
    for step in range(hparams.v_num_grad_steps):
        loss = problem.loss(loaded, delta[active], hparams)
        on_step(len(active))
        over = step == hparams.v_num_grad_steps - 1
        done = (loss.detach() < ENOUGH) | over
        for index, value in zip(active[done].tolist(), loss[done].tolist(), strict=True):
            z = (start[index] + delta[index].detach()).cpu()
            on_found(index, Found(z, value, step))
        if bool(done.all()):
            return
        (delta.grad,) = torch.autograd.grad(loss[~done].sum(), delta)
        active, kept = active[~done], delta.detach().clone()
        optimiser.step()
        with torch.no_grad():
            moved = _clamped(delta[active], most[active])
            delta.copy_(kept)
            delta[active] = moved
        if bool(done.any()):
            problem = problem.only(torch.nonzero(~done).flatten())
