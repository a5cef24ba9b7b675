"""Line art: a picture redrawn by translation between domains. Chan et al., "Learning to generate line drawings that convey geometry and
semantics" (CVPR 2022).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import instance_norm, pad

from .weights import NOWHERE, check_weights, filled, shapes, unmarked

WIDTH = 64
"""Channels at the picture's own size; twice as many at half of it, four times at a quarter."""
RESIDUALS = 3


def placed(places: Mapping[int, nn.Module]) -> nn.ModuleDict:
    """Convolutions by their place in the published code's sequences, where what has no weights lies between them."""
    return nn.ModuleDict({str(place): module for place, module in places.items()})


def mirrored(x: Tensor, border: int) -> Tensor:
    return pad(x, (border, border, border, border), mode="reflect")


def normalised(x: Tensor) -> Tensor:
    """Each channel of each picture by its own mean and deviation, and without what is negative."""
    return instance_norm(x).relu_()


class Residual(nn.Module):
    def __init__(self, channels: int, operations: Any, **factory: Any):
        super().__init__()
        self.conv_block = placed({place: operations.Conv2d(channels, channels, 3, **factory) for place in (1, 5)})

    def forward(self, x: Tensor) -> Tensor:
        change = normalised(self.conv_block["1"](mirrored(x, 1)))
        return instance_norm(self.conv_block["5"](mirrored(change, 1))).add_(x)


class Lineart(nn.Module):
    """RGB pictures (B, 3, H, W), 0..1, both sides multiples of 4 and at least 8 -> how light the paper is, 0..1, (B, 1, H, W) float32: lines are
    dark.
    """

    def __init__(self, width: int = WIDTH, operations: Any = nn, **factory: Any):
        super().__init__()
        halving = {"stride": 2, "padding": 1, **factory}
        doubling = {**halving, "output_padding": 1}
        self.model0 = placed({1: operations.Conv2d(3, width, 7, **factory)})
        self.model1 = placed(
            {
                0: operations.Conv2d(width, 2 * width, 3, **halving),
                3: operations.Conv2d(2 * width, 4 * width, 3, **halving),
            }
        )
        self.model2 = nn.ModuleList(Residual(4 * width, operations, **factory) for _ in range(RESIDUALS))
        self.model3 = placed(
            {
                0: operations.ConvTranspose2d(4 * width, 2 * width, 3, **doubling),
                3: operations.ConvTranspose2d(2 * width, width, 3, **doubling),
            }
        )
        self.model4 = placed({1: operations.Conv2d(width, 1, 7, **factory)})

    def forward(self, picture: Tensor) -> Tensor:
        x = normalised(self.model0["1"](mirrored(picture, 3)))
        for halve in self.model1.values():
            x = normalised(halve(x))
        for residual in self.model2:
            x = residual(x)
        for double in self.model3.values():
            x = normalised(double(x))
        return self.model4["1"](mirrored(x, 3)).float().sigmoid()  # type: ignore[no-any-return]


def build_lineart(
    weights: Mapping[str, Tensor], *, file: str = "Lineart", operations: Any = nn, dtype: torch.dtype = torch.float32
) -> Lineart:
    """The network of sk_model.pth or sk_model2.pth; its width is read from the shapes. Raises PreprocessorError."""
    weights = unmarked(weights)
    bias = weights.get("model0.1.bias")
    width = WIDTH if bias is None or bias.ndim != 1 else bias.shape[0]
    check_weights(file, "Lineart", weights, shapes(Lineart(width, device=NOWHERE)))
    return filled(Lineart(width, operations, device=NOWHERE, dtype=dtype), weights, dtype)
