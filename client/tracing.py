"""Causal tracing: which states, restored in a model that cannot see the subject, bring the fact back.

Meng et al. 2022 (ROME), section 2. A fact's prompt is run as it is (clean), with noise on the embeddings of the
subject's tokens (corrupted), and corrupted with states at one token put back to what they were in the clean run
(restored): a block's output at one layer, or the outputs of the MLPs, or of the attentions, of a window of layers. What
the restored run gives the object above the corrupted one is the state's indirect effect.

A restoration runs no block below the lowest that it changes: it goes on from the corrupted run's states there. Tokens
before the subject are the same in both runs, so that nothing is run for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import torch
from torch import Tensor, nn

from collabedit.client.loading import LoadedModel
from collabedit.client.noise import added_to_embeddings, embeddings, noise_of
from collabedit.client.passes import logits_at, only_blocks, output_of
from collabedit.client.probes import Probe

Kind = Literal["hidden", "mlp", "attention"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
TOKENS: Final = 4096  # of a pass; bounds the memory
WIDEST: Final = 10  # layers of a window, as in ROME


@dataclass(frozen=True)
class Trace:
    """One fact. clean, corrupted: the probability of the object's first token; corrupted is the mean over the samples.

    restored: [kinds, tokens, layers], float64, on the CPU: the same for each restoration, kinds in the order of KINDS.
    """

    probe: Probe
    clean: float
    corrupted: float
    restored: Tensor

    @property
    def effects(self) -> Tensor:
        """Indirect effects: [kinds, tokens, layers]; 0 before the subject."""
        return self.restored - self.corrupted


def default_window(layers: int) -> int:
    """10 layers, as in ROME, but no more than a quarter of the model's: a window over half of it would tell little."""
    return max(1, min(WIDEST, layers // 4))


def window_of(layer: int, window: int, layers: int) -> range:
    """The layers of the window around `layer`, cut at the model's ends; an even window reaches further down."""
    return range(max(0, layer - window // 2), min(layers, layer + (window + 1) // 2))


@torch.no_grad()
def trace(
    loaded: LoadedModel,
    probes: Sequence[Probe],
    *,
    std: float,
    window: int,
    samples: int = 10,
    seed: int = 0,
    batch: int = TOKENS,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Trace]:
    """Traces each fact over every layer and every token from the subject's first on; in the order given.

    std: of the noise, see `collabedit.client.noise`; samples: draws of it; window: layers whose MLPs, or attentions,
    are restored together. batch: most tokens of a pass (one restoration with all its samples is run together even above
    that); the states of so many tokens at all layers are kept. on_progress: called with the restorations done and
    their number. Facts of one length share passes.
    """
    depth, found = len(loaded.blocks), dict[int, Trace]()
    total = sum(len(probe.ids) - probe.first for probe in probes) * depth * len(KINDS)
    done = 0
    for members in _of_one_length(probes, samples, batch):
        bunch = _run([probes[member] for member in members], loaded, std, samples, seed)
        restored = bunch.corrupted[:, None, None, None].repeat(1, len(KINDS), bunch.ids.shape[1], depth)
        for number, kind in enumerate(KINDS):
            for layer in range(depth):
                restoring = _Restoring(kind, layer, window_of(layer, window, depth))
                for facts, tokens in bunch.places(max(1, batch // (samples * bunch.ids.shape[1]))):
                    restored[facts, number, tokens, layer] = _restored(loaded, bunch, restoring, facts, tokens)
                    done += len(facts)
                    if on_progress is not None:
                        on_progress(done, total)
        for index, member in enumerate(members):
            clean, corrupted = float(bunch.clean[index]), float(bunch.corrupted[index])
            found[member] = Trace(probes[member], clean, corrupted, restored[index])
    return [found[index] for index in range(len(probes))]


def _of_one_length(probes: Sequence[Probe], samples: int, batch: int) -> Iterator[list[int]]:
    """Numbers of probes with equally many tokens, as many as fit with their samples into `batch`; one at least."""
    lengths: dict[int, list[int]] = {}
    for index, probe in enumerate(probes):
        lengths.setdefault(len(probe.ids), []).append(index)
    for length in sorted(lengths):
        most, members = max(1, batch // (samples * length)), lengths[length]
        for start in range(0, len(members), most):
            yield members[start : start + most]


@dataclass(frozen=True)
class _Bunch:
    """Facts of one length, and their clean and corrupted runs; F facts, N samples, T tokens.

    ids: [F, T]; answers: [F]; first: the subjects' first tokens; noise: [F, N, T, d]; clean, corrupted: [F],
    probabilities, float64, on the CPU. clean_states: of each kind and layer, [F, T, d]; corrupted_states: of each
    block, [F, N, T, d].
    """

    ids: Tensor
    answers: Tensor
    first: tuple[int, ...]
    noise: Tensor
    clean: Tensor
    corrupted: Tensor
    clean_states: dict[Kind, list[Tensor]]
    corrupted_states: list[Tensor]

    def places(self, most: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every token from its subject's first on, `most` at a time: numbers of the facts, and of the tokens."""
        every = [(fact, token) for fact, first in enumerate(self.first) for token in range(first, self.ids.shape[1])]
        for part in torch.split(torch.tensor(every), most):
            yield part[:, 0], part[:, 1]


@dataclass(frozen=True)
class _Restoring:
    """What one pass puts back: the output of block `layer`, or those of the modules of a kind in the window."""

    kind: Kind
    layer: int
    window: range

    @property
    def first_block(self) -> int:
        """The lowest block that must be run."""
        return self.layer + 1 if self.kind == "hidden" else self.window.start


def _module(loaded: LoadedModel, kind: Kind, layer: int) -> nn.Module:
    """The module of one kind in one layer; inside `only_blocks`, of a block that is run."""
    family = loaded.architecture
    names = {"hidden": family.layer_module, "mlp": family.feed_forward, "attention": family.attention}
    return loaded.module(names[kind].format(layer))


def _run(probes: Sequence[Probe], loaded: LoadedModel, std: float, samples: int, seed: int) -> _Bunch:
    """The clean and the corrupted runs of facts of one length."""
    device = loaded.device
    ids = torch.tensor([probe.ids for probe in probes], device=device)
    answers = torch.tensor([probe.answer for probe in probes], device=device)
    width = embeddings(loaded)(ids[:1, :1]).shape[-1]
    noise = torch.zeros(len(probes), samples, ids.shape[1], width, dtype=loaded.dtype, device=device)
    for index, probe in enumerate(probes):
        drawn = noise_of(probe, width, std=std, samples=samples, seed=seed)
        noise[index, :, probe.first : probe.last + 1] = drawn.to(noise)
    with ExitStack() as stack:
        kept = {kind: _watched(stack, loaded, kind, ids.shape) for kind in KINDS}
        clean = _probabilities(loaded, ids, answers)
    states = {kind: [outputs[0] for outputs in layers] for kind, layers in kept.items()}
    with ExitStack() as stack:
        blocks = _watched(stack, loaded, "hidden", noise.shape[:-1])
        stack.enter_context(added_to_embeddings(loaded, noise.flatten(0, 1)))
        rows = (ids.repeat_interleave(samples, 0), answers.repeat_interleave(samples, 0))
        corrupted = _probabilities(loaded, *rows).reshape(-1, samples).mean(1)
    first = tuple(probe.first for probe in probes)
    return _Bunch(ids, answers, first, noise, clean, corrupted, states, [outputs[0] for outputs in blocks])


class _Shaped(list[Tensor]):
    """A list that gives what is appended a shape, the last dimension apart: OPT runs MLPs on [rows · columns, d]."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self._shape = tuple(shape)

    def append(self, states: Tensor) -> None:
        """Keeps `states` in the shape."""
        super().append(states.reshape(*self._shape, -1))


def _watched(stack: ExitStack, loaded: LoadedModel, kind: Kind, shape: Sequence[int]) -> list[_Shaped]:
    """For each layer, a list that receives its module's output, [*shape, d], until the stack is closed."""
    lists = [_Shaped(shape) for _ in loaded.blocks]
    for layer, into in enumerate(lists):
        stack.enter_context(output_of(_module(loaded, kind, layer), into))
    return lists


def _restored(loaded: LoadedModel, bunch: _Bunch, what: _Restoring, facts: Tensor, tokens: Tensor) -> Tensor:
    """The objects' probabilities [n], means over samples, with `what` restored at (facts[i], tokens[i])."""
    samples, block = bunch.noise.shape[1], what.first_block
    facts_on, rows = facts.to(loaded.device), torch.arange(len(facts) * samples)
    columns = tokens.repeat_interleave(samples)
    with ExitStack() as stack:
        if block == 0:
            stack.enter_context(added_to_embeddings(loaded, bunch.noise[facts_on].flatten(0, 1)))
        else:
            entering = bunch.corrupted_states[block - 1][facts].flatten(0, 1)
            if what.kind == "hidden":
                entering[rows, columns] = bunch.clean_states["hidden"][what.layer][facts, tokens].repeat_interleave(
                    samples, 0
                )
            stack.enter_context(only_blocks(loaded, block, len(loaded.blocks) - 1, entering))
        if what.kind != "hidden":
            for layer in what.window:
                values = bunch.clean_states[what.kind][layer][facts, tokens].repeat_interleave(samples, 0)
                stack.enter_context(_put_at(_module(loaded, what.kind, layer), rows, columns, values))
        ids, answers = (each[facts_on].repeat_interleave(samples, 0) for each in (bunch.ids, bunch.answers))
        return _probabilities(loaded, ids, answers).reshape(-1, samples).mean(1)


@contextmanager
def _put_at(module: nn.Module, rows: Tensor, columns: Tensor, values: Tensor) -> Iterator[None]:
    """Inside, the module's output at the n positions (rows[i], columns[i]) is `values` [n, d]."""

    def put(_: nn.Module, __: Any, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        changed = states.reshape(len(rows), -1, states.shape[-1]).index_put((rows, columns), values.to(states))
        changed = changed.reshape(states.shape)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = module.register_forward_hook(put)
    try:
        yield
    finally:
        handle.remove()


def _probabilities(loaded: LoadedModel, ids: Tensor, answers: Tensor) -> Tensor:
    """P(answers[i] | row i of ids [rows, T]): [rows], float64, on the CPU. No row is padded."""
    rows = torch.arange(len(ids))  # on the CPU: the head may be on another device than the embeddings
    positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    with logits_at(loaded, rows, torch.full_like(rows, ids.shape[1] - 1)):
        output = loaded.model(
            input_ids=ids, attention_mask=torch.ones_like(ids), position_ids=positions, use_cache=False
        )
    logits: Tensor = output.logits[0].to(loaded.working_dtype)
    chosen = logits.gather(1, answers.to(logits.device)[:, None])[:, 0]
    return (chosen - logits.logsumexp(-1)).double().exp().cpu()
