"""The hint network E of a control in training: what its backward pass needs, kept once, in the layout that suits its few channels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def embed(layers: Iterable[nn.Module], hint: Tensor) -> Tensor:
    """What `layers` (3×3 convolutions, a SiLU after each but the last) make of a hint (B, C, 8h, 8w): (B, channels, h, w), the same numbers.

    At a small base E is larger than the rest: it works on pictures eight times as wide as latents. With a gradient, half of what
    layers keep is left out, and on a CPU channels lie innermost, which changes the order of sums (relative 1e-5 in gradients).
    """
    if not torch.is_grad_enabled():
        for layer in layers:
            hint = layer(hint)
        return hint
    first, *others = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    if hint.device.type == "cpu":
        hint = hint.contiguous(memory_format=torch.channels_last)
    x: Tensor = first(hint)
    for layer in others:
        x = _SiluConvolution.apply(x, layer.weight, layer.bias, layer.stride, layer.padding)  # type: ignore[no-untyped-call]
    return x.contiguous()


class _SiluConvolution(torch.autograd.Function):
    """A convolution of SiLU(x) that keeps x alone: SiLU is computed again, to the same bits, when its gradient is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: Any, padding: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(functional.silu(x), weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        # Under autocast the convolution computed in the type of what it gave.
        dtype = gradient.dtype
        inner, of_weight, of_bias = torch.ops.aten.convolution_backward(
            gradient,
            functional.silu(x).to(dtype),
            weight.to(dtype),
            [len(weight)],
            ctx.stride,
            ctx.padding,
            (1, 1),
            False,
            (0, 0),
            1,
            ctx.needs_input_grad[:3],
        )
        of_x = None if inner is None else torch.ops.aten.silu_backward(inner.to(x.dtype), x)
        return of_x, of_weight, of_bias, None, None
