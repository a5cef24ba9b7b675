"""TEED: edges by fifty-nine thousand weights. Soria et al., "Tiny and Efficient Model for the Edge Detection Generalization" (ICCVW 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .logits import mean_logit
from .weights import NOWHERE, check_weights, filled, shapes, unmarked

# Of the transposed convolutions that enlarge 2^n times: kernel 2^n, and what is cut off at the borders.
CUT = {1: 0, 2: 1}
BETWEEN = 16
"""Channels between two enlargements."""
FUSED = 8
"""Views of each map in the last block."""


def smish(x: Tensor) -> Tensor:
    """x·tanh(ln(1 + sigmoid(x))) of Wang et al. (Electronics 11.4, 2022)."""
    return x * torch.tanh(torch.log1p(torch.sigmoid(x)))


class Convolutions(nn.Module):
    """Two 3x3 convolutions, smish after the first and, if `active`, after the second."""

    def __init__(self, channels: int, width: int, stride: int, active: bool, operations: Any, **factory: Any):
        super().__init__()
        self.active = active
        self.conv1 = operations.Conv2d(channels, width, 3, stride=stride, padding=1, **factory)
        self.conv2 = operations.Conv2d(width, width, 3, padding=1, **factory)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(smish(self.conv1(x)))
        return smish(x) if self.active else x


class Dense(nn.Module):
    """Two convolutions whose mean with another view is passed on; the first grows the map by a border, the second takes it off."""

    def __init__(self, channels: int, width: int, operations: Any, **factory: Any):
        super().__init__()
        self.conv1 = operations.Conv2d(channels, width, 3, padding=2, **factory)
        self.conv2 = operations.Conv2d(width, width, 3, **factory)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return 0.5 * (self.conv2(smish(self.conv1(smish(x)))) + other)  # type: ignore[no-any-return]


class Side(nn.Module):
    """A 1x1 convolution."""

    def __init__(self, channels: int, width: int, stride: int, operations: Any, **factory: Any):
        super().__init__()
        self.conv = operations.Conv2d(channels, width, 1, stride=stride, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)  # type: ignore[no-any-return]


class Enlargement(nn.Module):
    """Features to one map, `doublings` times doubled."""

    def __init__(self, channels: int, doublings: int, operations: Any, **factory: Any):
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(1, doublings + 1):
            width = 1 if number == doublings else BETWEEN
            layers.append(operations.Conv2d(channels, width, 1, **factory))
            layers.append(Smish())
            layers.append(
                operations.ConvTranspose2d(width, width, 2**doublings, stride=2, padding=CUT[doublings], **factory)
            )
            channels = width
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)  # type: ignore[no-any-return]


class Smish(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return smish(x)


class Fusion(nn.Module):
    """Three maps to one, by convolutions of each map alone."""

    def __init__(self, maps: int, operations: Any, **factory: Any):
        super().__init__()
        width = maps * FUSED
        self.DWconv1 = operations.Conv2d(maps, width, 3, padding=1, groups=maps, **factory)
        self.DWconv2 = operations.Conv2d(width, width, 3, padding=1, groups=width, **factory)

    def forward(self, x: Tensor) -> Tensor:
        once = self.DWconv1(smish(x))
        return smish((self.DWconv2(smish(once)) + once).sum(1, keepdim=True))


class TEED(nn.Module):
    """RGB pictures (B, 3, H, W), 0..1, sides multiples of 4 -> logits of edges (B, 1, H, W), float32."""

    def __init__(self, operations: Any = nn, **factory: Any):
        super().__init__()
        self.block_1 = Convolutions(3, 16, 2, True, operations, **factory)
        self.block_2 = Convolutions(16, 32, 1, False, operations, **factory)
        self.dblock_3 = nn.ModuleDict({"denselayer1": Dense(32, 48, operations, **factory)})
        self.side_1 = Side(16, 32, 2, operations, **factory)
        self.pre_dense_3 = Side(32, 48, 1, operations, **factory)
        self.up_block_1 = Enlargement(16, 1, operations, **factory)
        self.up_block_2 = Enlargement(32, 1, operations, **factory)
        self.up_block_3 = Enlargement(48, 2, operations, **factory)
        self.block_cat = Fusion(3, operations, **factory)

    def forward(self, picture: Tensor) -> Tensor:
        first = self.block_1(picture * 255)
        second = self.block_2(first)
        halved = nn.functional.max_pool2d(second, 3, stride=2, padding=1)
        third = self.dblock_3["denselayer1"](halved + self.side_1(first), self.pre_dense_3(halved))
        maps = [self.up_block_1(first), self.up_block_2(second), self.up_block_3(third)]
        return mean_logit([*maps, self.block_cat(torch.cat(maps, 1))], picture.shape[2:])


def build_teed(
    weights: Mapping[str, Tensor], *, file: str = "TEED", operations: Any = nn, dtype: torch.dtype = torch.float32
) -> TEED:
    """The network of 7_model.pth or MTEED.pth. Raises PreprocessorError."""
    weights = unmarked(weights)
    check_weights(file, "TEED", weights, shapes(TEED(device=NOWHERE)))
    return filled(TEED(operations, device=NOWHERE, dtype=dtype), weights, dtype)
