"""HED: edges from the layers of VGG. Xie and Tu, "Holistically-Nested Edge Detection" (ICCV 2015), in lllyasviel's version for ControlNet."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from .logits import mean_logit
from .weights import NOWHERE, check_weights, filled, shapes, unmarked

CONVOLUTIONS = (2, 2, 3, 3, 3)
"""Of each resolution."""
WIDTHS = (64, 128, 256, 512, 512)


class Block(nn.Module):
    """Convolutions of one resolution, and what they say of edges."""

    def __init__(self, channels: int, out_channels: int, count: int, operations: Any, **factory: Any):
        super().__init__()
        widths = [channels, *[out_channels] * count]
        self.convs = nn.ModuleList(
            operations.Conv2d(inside, outside, 3, padding=1, **factory) for inside, outside in pairwise(widths)
        )
        self.projection = operations.Conv2d(out_channels, 1, 1, **factory)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for convolution in self.convs:
            x = convolution(x).relu()
        return x, self.projection(x)


class HED(nn.Module):
    """RGB pictures (B, 3, H, W), 0..1, at least 16 pixels each way -> logits of edges (B, 1, H, W), float32."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS, operations: Any = nn, **factory: Any):
        super().__init__()
        self.norm = nn.Parameter(torch.zeros(1, 3, 1, 1, **factory))
        channels = 3
        for number, (width, count) in enumerate(zip(widths, CONVOLUTIONS, strict=True), start=1):
            self.add_module(f"block{number}", Block(channels, width, count, operations, **factory))
            channels = width

    def forward(self, picture: Tensor) -> Tensor:
        x, logits = picture * 255 - self.norm.to(picture), []
        for number in range(1, len(CONVOLUTIONS) + 1):
            if number > 1:
                x = nn.functional.max_pool2d(x, 2)
            x, found = self.get_submodule(f"block{number}")(x)
            logits.append(found)
        return mean_logit(logits, picture.shape[2:])


def build_hed(
    weights: Mapping[str, Tensor], *, file: str = "HED", operations: Any = nn, dtype: torch.dtype = torch.float32
) -> HED:
    """The network of ControlNetHED.pth; its widths are read from the shapes. Raises PreprocessorError."""
    weights = unmarked(weights)
    widths = tuple(
        width if (bias := weights.get(f"block{number}.convs.0.bias")) is None or bias.ndim != 1 else bias.shape[0]
        for number, width in enumerate(WIDTHS, start=1)
    )
    check_weights(file, "HED", weights, shapes(HED(widths, device=NOWHERE)))
    return filled(HED(widths, operations, device=NOWHERE, dtype=dtype), weights, dtype)
