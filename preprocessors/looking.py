"""The picture as a network sees it that was made for one size: resized by its publisher's rule, in floats and on the picture's device."""

from __future__ import annotations

from math import sqrt
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .preprocessor import Parameter
from .sizing import Size

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of the colours, as torchvision's networks and DINOv2 were trained."""
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

SQUARES = 4
"""A network looks at no more than this many times the area it was made for, however long the picture is: its memory stays bounded."""


def inference_size(default: int, step: int, side: str = "side") -> Parameter:
    return Parameter(
        "inference_size",
        default,
        f"Pixels of the {side} at which the network looks at the picture: more shows finer detail at more time and memory, and far above the "
        f"{default} that it was trained with coarse shapes get lost. The hint's size is the resolution's.",
        minimum=step * 8,
        maximum=step * 160,
        step=step,
    )


def fitted_size(size: Size, target: Size, multiple: int) -> Size:
    """The picture's aspect with one side at the target's, whichever is less of a change, both sides rounded to a multiple.

    The rule of MiDaS, DPT and ZoeDepth. Rounding is to the nearest, halves to even; at least one multiple, at most SQUARES times the target's area.
    """
    down, across = target.height / size.height, target.width / size.width
    return scaled_size(size, across if abs(1 - across) < abs(1 - down) else down, target, multiple)


def largest_size(size: Size, target: Size, multiple: int) -> Size:
    """The most that `fitted_size` gives for a picture of this aspect, whatever its size."""
    return scaled_size(size, max(target.height / size.height, target.width / size.width), target, multiple)


def scaled_size(size: Size, scale: float, target: Size, multiple: int) -> Size:
    height, width = (max(multiple, round(scale * side / multiple) * multiple) for side in size)
    most = SQUARES * target.height * target.width
    if height * width <= most:
        return Size(height, width)
    shrink = sqrt(most / (height * width))
    shorter = max(multiple, int(min(height, width) * shrink / multiple) * multiple)
    longer = max(multiple, int(min(max(height, width) * shrink, most / shorter) / multiple) * multiple)
    return Size(longer, shorter) if height > width else Size(shorter, longer)


def resampled(
    picture_bchw: Tensor,
    size: Size,
    mode: Literal["bilinear", "bicubic"],
    *,
    antialias: bool = False,
    align_corners: bool = False,
) -> Tensor:
    """(B, C, H, W) float -> (B, C, *size), as PyTorch resizes; cubic goes beyond the range of what it gets."""
    if tuple(picture_bchw.shape[2:]) == tuple(size):
        return picture_bchw
    return interpolate(picture_bchw, tuple(size), mode=mode, antialias=antialias, align_corners=align_corners)


def standardised(picture_bchw: Tensor, statistics: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    """(B, 3, H, W) in 0..1 -> less the mean, by the deviation."""
    mean, deviation = (torch.tensor(one, device=picture_bchw.device).reshape(1, 3, 1, 1) for one in statistics)
    return (picture_bchw - mean) / deviation
