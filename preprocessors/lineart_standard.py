"""Standard line art: what is darker than its surroundings, without a network."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .frames import VALUES_PER_PIXEL, darkest, each_frame
from .gaussians import blurred
from .preprocessor import Parameter, Preprocessor

FAINTEST = 16.0
"""The strength of a line, in 8-bit steps, that is half white at least; sd-webui-controlnet's lineart_standard."""


def lineart_standard(
    image_bhwc: Tensor, *, sigma: float = 6.0, intensity_threshold: int = 8, resolution: int = 0
) -> Tensor:
    """Soft white lines on black: how much darker each pixel is than the picture blurred with `sigma` pixels.

    The lines are scaled so that the median of those above `intensity_threshold` (8-bit steps) is half white. (B, H, W, 3) float 0..1 ->
    (B, H', W', 3) float32 in 0..1, the shorter side at `resolution` (0: its own).
    """
    import cv2  # here, because importing the pack must stay fast

    def recipe(picture: np.ndarray) -> np.ndarray:
        values = picture.astype(np.float32)
        softened = cv2.GaussianBlur(values, (0, 0), sigma) if sigma > 0 else values
        strength = darkest(softened - values).clip(0, 255)
        strong = strength[strength > intensity_threshold]
        scale = max(FAINTEST, float(np.median(strong))) if strong.size else FAINTEST
        lines: np.ndarray = (strength / scale * 127).clip(0, 255).astype(np.uint8)
        return lines

    def batched(picture: Tensor) -> Tensor:
        softened = blurred(picture, sigma) if sigma > 0 else picture
        strength = (softened - picture).amin(-1).clamp_(0, 255)
        scales = torch.stack([median_above(frame, intensity_threshold) for frame in strength]).clamp_(min=FAINTEST)
        return (strength / scales.view(-1, 1, 1)).mul_(127).clamp_(0, 255).to(torch.uint8)

    return each_frame(image_bhwc, resolution, recipe, batched)


def median_above(values: Tensor, threshold: float) -> Tensor:
    """The median of those above the threshold, 0 where there are none: a tensor of one number, without waiting for the accelerator."""
    above = values > threshold
    ordered = torch.where(above, values, torch.inf).flatten().sort().values
    count = above.sum()
    places = torch.stack([(count - 1).clamp(min=0) // 2, count // 2]).clamp_(max=ordered.numel() - 1)
    middle = ordered.index_select(0, places)
    return torch.where(count > 0, (middle[0] + middle[1]) / 2, 0)


LINEART_STANDARD = Preprocessor(
    id="LineartStandard",
    name="Standard Lineart",
    function=lineart_standard,
    parameters=(
        Parameter(
            "sigma",
            default=6.0,
            minimum=0.0,
            maximum=100.0,
            step=0.1,
            tooltip="Blur in pixels: larger finds broader lines.",
        ),
        Parameter(
            "intensity_threshold",
            default=8,
            minimum=0,
            maximum=16,
            step=1,
            tooltip="Lines fainter than this do not count when the brightness of all is set.",
        ),
    ),
    values_per_pixel=VALUES_PER_PIXEL,
    output="soft white lines on black",
    description="Lines of a drawing or photograph by their darkness, without a network: for the lineart ControlNets.",
    aliases=("LineartStandardPreprocessor", "lineart_standard", "line art", "ink lines"),
)
