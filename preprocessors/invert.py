"""The negative: for line art drawn dark on light, which ControlNets want light on dark."""

from __future__ import annotations

import torch
from torch import Tensor

from .frames import VALUES_PER_PIXEL
from .pixels import check_picture
from .preprocessor import Preprocessor
from .sizing import resized


def invert(image_bhwc: Tensor, *, resolution: int = 0) -> Tensor:
    """1 − x of every channel, in 0..1. (B, H, W, 3) float -> (B, H', W', 3) float32, the shorter side at `resolution` (0: its own)."""
    check_picture(image_bhwc, "image")
    return 1.0 - resized(image_bhwc.to(torch.float32), resolution).clamp(0.0, 1.0)


INVERT = Preprocessor(
    id="Invert",
    name="Invert",
    function=invert,
    parameters=(),
    values_per_pixel=VALUES_PER_PIXEL,
    output="the negative of the picture",
    description="Black lines on white become white lines on black, as line ControlNets expect them.",
    aliases=("invert", "negative", "white lines on black", "lineart from drawing"),
)
