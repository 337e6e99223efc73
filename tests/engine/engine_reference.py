"""MEMIT for one edit and one row at a time, written from the text of the algorithm: full passes, nothing kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from collabedit.client.loading import LoadedModel
from collabedit.common.edits import Edit
from collabedit.common.hparams import HyperParameters

SENTENCES = (
    "The mother tongue of Danielle Darrieux is French, and that of Leo Tolstoy is Russian.",
    "Toko Yasuda plays the guitar. Autonomous University of Madrid is located in Spain.",
    "The capital of Norway is Oslo; the capital of Sweden is Stockholm.",
    "Because the river is long, I walked with you. Therefore you and I sang.",
)


def tokens_of(loaded: LoadedModel, text: str) -> list[tuple[int, int, int]]:
    """(id, begin, end) of each token; without what the tokenizer puts behind every text."""
    coded = loaded.tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    tokens = [(token, *span) for token, span in zip(coded["input_ids"], coded["offset_mapping"], strict=True)]
    while coded["special_tokens_mask"][len(tokens) - 1]:
        tokens.pop()
    return tokens


def ids_of(loaded: LoadedModel, text: str) -> list[int]:
    """Token ids."""
    return [token for token, _, _ in tokens_of(loaded, text)]


def subject_last(loaded: LoadedModel, text: str, end: int) -> int:
    """The token that holds the subject's last character, which ends at `end`."""
    return max(index for index, (_, begin, stop) in enumerate(tokens_of(loaded, text)) if begin < end <= stop)


def target_of(loaded: LoadedModel, text: str, target: str) -> tuple[list[int], list[int]]:
    """(the tokens before the target's first, the target's), of the text going on with the target."""
    tokens = tokens_of(loaded, f"{text} {target}")
    start = next(index for index, (_, _, end) in enumerate(tokens) if end > len(text))
    ids = [token for token, _, _ in tokens]
    return ids[:start], ids[start:]


def sentences(edit: Edit, templates: Any) -> list[tuple[str, int]]:
    """Each template filled, with the character at which the subject ends."""
    out = []
    for template in [each for group in templates for each in group]:
        before = template[: template.index("{}")] + edit.prompt[: edit.prompt.index("{}")] + edit.subject
        text = template.replace("{}", edit.prompt).replace("{}", edit.subject)
        assert text.startswith(before)
        out.append((text, len(before)))
    return out


def run(
    loaded: LoadedModel, ids: list[int], layer: int, at: int, delta: Tensor | None, loss_layer: int | None = None
) -> tuple[Tensor, Tensor]:
    """Logits [tokens, vocabulary] and the layer's state [d_model] at `at`, before δ is added to it.

    loss_layer: whose output the final norm and the head read, in place of the last one's.
    """
    seen = []

    def hook(_: Any, __: Any, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        seen.append(states[0, at].detach().clone())
        if delta is None:
            return None
        states = states.clone()
        states[0, at] = states[0, at] + delta
        return (states, *output[1:]) if isinstance(output, tuple) else states

    def replace_last(_: Any, __: Any, output: Any) -> Any:
        return (deep[0], *output[1:]) if isinstance(output, tuple) else deep[0]

    def keep(_: Any, __: Any, output: Any) -> None:
        deep.append(output[0] if isinstance(output, tuple) else output)

    deep: list[Tensor] = []
    handles = [loaded.blocks[layer].register_forward_hook(hook)]
    if loss_layer is not None:
        handles.append(loaded.blocks[loss_layer].register_forward_hook(keep))
        handles.append(loaded.blocks[-1].register_forward_hook(replace_last))
    try:
        logits = loaded.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    finally:
        for handle in handles:
            handle.remove()
    return logits, seen[0]


def find_z(loaded: LoadedModel, edit: Edit, hparams: HyperParameters, templates: Any) -> tuple[Tensor, float, int]:
    """z [d_model], the loss at it, and the number of steps."""
    layer = hparams.layers[-1]
    rows = []
    for text, end in sentences(edit, templates):
        before, target = target_of(loaded, text, edit.target_new)
        joined = f"{text} {edit.target_new}"
        rows.append((before + target[:-1], subject_last(loaded, joined, end), len(before), target))
    drift = f"{edit.subject} is a"
    drift_ids, drift_at = ids_of(loaded, drift), subject_last(loaded, drift, len(edit.subject))
    with torch.no_grad():
        p0 = run(loaded, drift_ids, layer, drift_at, None, hparams.v_loss_layer)[0][drift_at].log_softmax(-1)
        h0 = run(loaded, rows[0][0], layer, rows[0][1], None)[1]
    deep = hparams.v_loss_layer
    delta = torch.zeros_like(h0, requires_grad=True)
    optimiser = torch.optim.Adam([delta], lr=hparams.v_lr)
    for step in range(hparams.v_num_grad_steps):
        nll = torch.zeros((), dtype=h0.dtype)
        for ids, at, start, target in rows:
            logp = run(loaded, ids, layer, at, delta, deep)[0].log_softmax(-1)
            picked = torch.stack([logp[start - 1 + order, token] for order, token in enumerate(target)])
            nll = nll - picked.sum() / len(target) / len(rows)
        p = run(loaded, drift_ids, layer, drift_at, delta, deep)[0][drift_at].log_softmax(-1)
        kl = (p0.exp() * (p0 - p)).sum()
        loss = nll + hparams.kl_factor * kl + hparams.v_weight_decay * delta.norm() / h0.norm() ** 2
        if loss < 0.05 or step == hparams.v_num_grad_steps - 1:
            break
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        most = hparams.clamp_norm_factor * h0.norm()
        if delta.norm() > most:
            with torch.no_grad():
                delta.mul_(most / delta.norm())
    return (h0 + delta).detach(), float(loss.detach()), step


def nll(loaded: LoadedModel, text: str, target: str) -> float:
    """The mean over the target's tokens of −log p, after `text`."""
    before, wanted = target_of(loaded, text, target)
    with torch.no_grad():
        logits = loaded.model(input_ids=torch.tensor([before + wanted]), use_cache=False).logits[0]
    logp = logits.log_softmax(-1)
    return -sum(float(logp[len(before) - 1 + order, token]) for order, token in enumerate(wanted)) / len(wanted)


def key_and_state(
    loaded: LoadedModel, edit: Edit, hparams: HyperParameters, templates: Any, layer: int
) -> tuple[Tensor, Tensor]:
    """The key [d_in] of one layer and the state [d_model] of the last edited layer, for one edit, float64."""
    module = loaded.model.get_submodule(loaded.architecture.rewrite_module.format(layer))
    groups, filled, state = [], sentences(edit, templates), None
    for group in templates:
        keys = []
        for _ in group:
            text, end = filled.pop(0)
            at, seen = subject_last(loaded, text, end), []
            handle = module.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
            try:
                with torch.no_grad():
                    _, here = run(loaded, ids_of(loaded, text), hparams.layers[-1], at, None)
            finally:
                handle.remove()
            state = here if state is None else state
            keys.append(seen[0].flatten(0, -2)[at].double())
        groups.append(sum(keys) / len(keys))
    return sum(groups) / len(groups), state.double()


def memit(
    loaded: LoadedModel, edits: Any, z: Tensor, hparams: HyperParameters, templates: Any, priors: Any
) -> dict[str, Tensor]:
    """True MEMIT over all edits: Δ [d_out, d_in] by weight, by an explicit inverse; the model is put back."""
    deltas, before = {}, {}
    count = len(hparams.layers)
    for index, layer in enumerate(hparams.layers):
        name = loaded.architecture.weight_name(layer)
        pairs = [key_and_state(loaded, edit, hparams, templates, layer) for edit in edits]
        K = torch.stack([key for key, _ in pairs], dim=1)
        R = (z.double() - torch.stack([state for _, state in pairs], dim=1)) / (count - index)
        deltas[name] = R @ K.T @ torch.linalg.inv(priors[name].dense() + K @ K.T)
        weight = loaded.model.get_parameter(name)
        before[name] = weight.detach().clone()
        with torch.no_grad():
            stored = deltas[name].T if loaded.architecture.transposed else deltas[name]
            weight.copy_((weight.double() + stored).to(weight.dtype))
    with torch.no_grad():
        for name, weight in before.items():
            loaded.model.get_parameter(name).copy_(weight)
    return deltas
