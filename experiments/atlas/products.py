"""Matrix products in bfloat16 for CPUs that have instructions for them; all else stays in float32."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


class _Product(torch.autograd.Function):
    """x W + b, x: [N, d_in], W: [d_in, d_out]; operands of the three products rounded to bfloat16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """[N, d_out], float32."""
        x, weight = x.bfloat16(), weight.bfloat16()
        ctx.save_for_backward(x, weight)
        return torch.addmm(bias.bfloat16(), x, weight).float()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of x, W and b, float32."""
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        rounded = gradient.bfloat16()
        return (rounded @ weight.t()).float(), (x.t() @ rounded).float(), gradient.sum(0)


def _forward(module: Conv1D, x: Tensor) -> Tensor:
    flat = x.reshape(-1, x.shape[-1])
    product: Tensor = _Product.apply(flat, module.weight, module.bias)  # type: ignore[no-untyped-call]
    return product.view(*x.shape[:-1], -1)


@contextmanager
def bfloat16_products(model: nn.Module) -> Iterator[None]:
    """While this holds, the model's GPT-2 projections multiply in bfloat16. Weights stay in float32."""
    projections = [module for module in model.modules() if isinstance(module, Conv1D)]
    for module in projections:
        module.forward = partial(_forward, module)
    try:
        yield
    finally:
        for module in projections:
            del module.forward
