"""The search for z of one batch of edits, all at once (algorithm section 8, step 2)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from collabedit.client.descent import Descent
from collabedit.client.loading import LoadedModel
from collabedit.client.lookup import Row
from collabedit.client.memory import spare_tokens
from collabedit.client.passes import Extent, groups
from collabedit.client.prefix import Common, Prefix, common_of, prefix_of
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

    @property
    def tokens(self) -> int:
        """Padded tokens of the rewriting rows."""
        return self.rewriting.mask.numel()

    def padding(self, columns: int) -> int:
        """Tokens of padding behind the rewriting rows, if they had so many columns."""
        own = self.rewriting.mask[:, self.rewriting.length :]
        return len(own) * max(columns, own.shape[1]) - int(own.sum())

    def only(self, edits: Tensor) -> Problem:
        """The problem of some of the edits, by their numbers."""
        rows = (edits[:, None] * self.width + torch.arange(self.width)).flatten()
        p0 = None if self.p0 is None else self.p0[edits]
        first = self.first[rows]
        rewriting = self.rewriting.only(rows, asked=int(first.min()))
        return Problem(rewriting, self.drift.only(edits), self.labels[rows], first, self.width, p0)

    def joined(self, other: Problem) -> Problem:
        """The problem of these edits and the other's."""
        longest = max(self.labels.shape[1], other.labels.shape[1])
        one, two = (functional.pad(t, (0, longest - t.shape[1]), value=ABSENT) for t in (self.labels, other.labels))
        p0 = None if self.p0 is None or other.p0 is None else torch.cat([self.p0, other.p0])
        return Problem(
            self.rewriting.joined(other.rewriting), self.drift.joined(other.drift), torch.cat([one, two]),
            torch.cat([self.first, other.first]), self.width, p0,
        )  # fmt: skip

    def nll(self, delta: Tensor) -> Tensor:
        """[n]: mean over templates of the mean over the target's tokens."""
        rows, order = torch.nonzero(self.labels != ABSENT, as_tuple=True)
        spread = delta.unsqueeze(1).expand(-1, self.width, -1).reshape(len(self.labels), -1)
        logits = self.rewriting.logits(spread, rows, self.first[rows] + order).to(delta.dtype)
        each = functional.cross_entropy(logits, self.labels[rows, order], reduction="none")
        table = torch.zeros(self.labels.shape, dtype=delta.dtype, device=delta.device)
        table = table.index_put((rows, order), each)
        rates = table.sum(1) / (self.labels != ABSENT).sum(1)
        return rates.reshape(-1, self.width).mean(1)

    def drifted(self, delta: Tensor) -> Tensor:
        """[n, vocabulary]: log-probabilities at the KL rows."""
        rows = torch.arange(len(delta), device=delta.device)
        return self.drift.logits(delta, rows, torch.zeros_like(rows)).to(delta.dtype).log_softmax(-1)

    def loss(self, delta: Tensor, hparams: HyperParameters) -> Tensor:
        """[n]: NLL + kl_factor · KL(p₀‖p) + wd · ‖δ‖/‖h0‖². Raises ValueError before p0 is known."""
        if self.p0 is None:
            raise ValueError("p0 is not known yet")
        drift = (self.p0.exp() * (self.p0 - self.drifted(delta))).sum(-1)
        size = self.undisturbed.to(delta.dtype).norm(dim=-1)
        decay = delta.norm(dim=-1) / size.square()
        loss: Tensor = self.nll(delta) + hparams.kl_factor * drift + hparams.v_weight_decay * decay
        return loss


@dataclass(frozen=True)
class Shared:
    """What the rows of all edits have in common, run once: the rewriting rows by template, and the KL rows."""

    rewriting: Common
    drift: Common

    def extent(self, plan: Plan) -> Extent:
        """What a plan's rewriting rows need, beyond what they share."""
        return Extent.of([self.rewriting.own(row, kind) for kind, row in enumerate(plan.rewriting)])


def share(loaded: LoadedModel, plans: Sequence[Plan], hparams: HyperParameters) -> Shared:
    """Runs what the plans' rows begin with in common. No plans are an error."""
    loss_layer = _loss_layer(loaded, hparams)
    kinds = list(zip(*(plan.rewriting for plan in plans), strict=True))
    return Shared(common_of(loaded, kinds, loss_layer), common_of(loaded, [[p.drift for p in plans]], loss_layer))


def _loss_layer(loaded: LoadedModel, hparams: HyperParameters) -> int:
    return len(loaded.blocks) - 1 if hparams.v_loss_layer is None else hparams.v_loss_layer


@torch.no_grad()
def pose(loaded: LoadedModel, plans: Sequence[Plan], shared: Shared, hparams: HyperParameters) -> Problem:
    """Runs the first passes over the rows of all plans and lays out their labels."""
    rows = [row for plan in plans for row in plan.rewriting]
    layers = hparams.layers[-1], _loss_layer(loaded, hparams)
    labels = torch.full((len(rows), max(len(row.labels) for row in rows)), ABSENT, dtype=torch.int64)
    for index, row in enumerate(rows):
        labels[index, : len(row.labels)] = torch.tensor(row.labels)
    first = torch.tensor([len(row.ids) - len(row.labels) - row.subject for row in rows])
    problem = Problem(
        replace(prefix_of(loaded, rows, shared.rewriting, *layers), asked=int(first.min())),
        prefix_of(loaded, [plan.drift for plan in plans], shared.drift, *layers),
        labels.to(loaded.device),
        first.to(loaded.device),
        len(plans[0].rewriting),
    )
    unmoved = torch.zeros_like(problem.undisturbed, dtype=loaded.working_dtype)
    return replace(problem, p0=problem.drifted(unmoved))


@dataclass(frozen=True)
class Front:
    """The edits under way: numbers of their plans, their problem, and how far each has come."""

    numbers: Tensor
    problem: Problem
    descent: Descent

    def only(self, rows: Tensor) -> Front:
        """Some of them, by their places in the front."""
        return Front(self.numbers[rows], self.problem.only(rows), self.descent.only(rows))

    def joined(self, other: Front) -> Front:
        """These, then the other's."""
        numbers = torch.cat([self.numbers, other.numbers])
        return Front(numbers, self.problem.joined(other.problem), self.descent.joined(other.descent))

    def z(self, dtype: torch.dtype) -> Tensor:
        """h0 + δ as it is now, [n, d_model]."""
        return self.problem.undisturbed.to(dtype) + self.descent.delta


def enter(
    loaded: LoadedModel, plans: Sequence[Plan], numbers: Sequence[int], shared: Shared, hparams: HyperParameters
) -> Front:
    """The plans of these numbers, at the beginning of their search."""
    problem = pose(loaded, [plans[number] for number in numbers], shared, hparams)
    start = problem.undisturbed.to(loaded.working_dtype)
    descent = Descent.at_rest(hparams.clamp_norm_factor * start.norm(dim=-1), start.shape[1])
    return Front(torch.tensor(numbers), problem, descent)


def search(
    loaded: LoadedModel,
    plans: Sequence[Plan],
    wanted: Sequence[int],
    hparams: HyperParameters,
    *,
    batch: int,
    on_found: Callable[[int, Found], None],
    on_step: Callable[[int], None],
) -> None:
    """Minimises the loss of each plan that is wanted, by its number, over its own δ.

    Adam, and ‖δ‖ ≤ clamp·‖h0‖ after each step, until the loss is enough (algorithm section 8, step 2).
    As in MEMIT, `v_num_grad_steps` counts evaluations of the loss: the last is not followed by a step. Plans are under
    way together, as many as `batch` padded tokens hold; those that are done leave, and when half of the tokens are free
    others take their place, unless more padding than another step is worth would come with them. What rows share is
    what those of all plans do, so that a plan's z is the same to the bit whichever others are wanted, where it is
    searched for alone.
    on_found: called with a plan's number and its result as soon as it is there; on_step: with the number of edits
    that took part in a step.
    """
    if not wanted:
        return
    shared = share(loaded, plans, hparams)
    slack = spare_tokens(loaded, hparams)
    batches = groups([shared.extent(plans[number]) for number in wanted], max(1, batch // 2), slack=slack)
    waiting = deque([wanted[place] for place in places] for places in batches)
    front: Front | None = None
    while front is not None or waiting:
        while waiting and (front is None or front.problem.tokens <= batch // 2):
            columns = max(len(row.ids) - row.subject for number in waiting[0] for row in plans[number].rewriting)
            if front is not None and front.problem.padding(columns) > slack:
                break
            fresh = enter(loaded, plans, waiting.popleft(), shared, hparams)
            front = fresh if front is None else front.joined(fresh)
        assert front is not None
        front = _advanced(loaded, front, hparams, on_found)
        on_step(0 if front is None else len(front.numbers))


def _advanced(
    loaded: LoadedModel, front: Front, hparams: HyperParameters, on_found: Callable[[int, Found], None]
) -> Front | None:
    """The front after one evaluation of the loss: what is done has been handed out, the rest has moved one step."""
    descent, delta = front.descent, front.descent.delta.detach().requires_grad_()
    loss = front.problem.loss(delta, hparams)
    losses = loss.detach()
    done = (losses < ENOUGH) | (descent.steps >= hparams.v_num_grad_steps - 1)
    finished, going = (torch.nonzero(each).flatten() for each in (done.cpu(), ~done.cpu()))
    z = front.z(loaded.working_dtype)[finished].cpu()
    for place, index in enumerate(finished.tolist()):
        on_found(int(front.numbers[index]), Found(z[place], float(losses[index]), int(descent.steps[index])))
    if not len(going):
        return None
    (gradient,) = torch.autograd.grad(loss[going].sum(), delta)
    left = front.only(going) if len(finished) else front
    return replace(left, descent=left.descent.step(gradient[going], hparams.v_lr))
