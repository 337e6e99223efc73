"""Where the modules of a model are that accelerate has spread over several devices, memory and disk.

accelerate keeps the weights of an offloaded module elsewhere (in their place are tensors without data, on the device
"meta"), brings them in for each forward and drops them after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


def working_device(module: nn.Module) -> torch.device:
    """The device on which a module computes, wherever its weights are between passes."""
    device = next(module.parameters()).device
    for hook in _aligning(module):
        if device.type == "meta" and hook.execution_device is not None:
            device = torch.device(hook.execution_device)
    return device


def keep_in_place(module: nn.Module) -> None:
    """An offloaded module's weights come to its working device and stay there; those of others are there already.

    A weight that is written must stay: where it came from (the model's own folder, as a rule) is only read.
    """
    for hook in _aligning(module):
        if hook.offload:
            hook.pre_forward(module)
            hook.offload = False


def _aligning(module: nn.Module) -> Iterator[Any]:
    """accelerate's hooks on a module that see to devices."""
    hook = getattr(module, "_hf_hook", None)
    if hook is None:
        return
    from accelerate.hooks import AlignDevicesHook

    for each in getattr(hook, "hooks", (hook,)):
        if isinstance(each, AlignDevicesHook):
            yield each
