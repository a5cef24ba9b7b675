"""Standard line art: what is darker than its surroundings, without a network."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from .frames import each_frame
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
        blurred = cv2.GaussianBlur(values, (0, 0), sigma) if sigma > 0 else values
        strength = (blurred - values).min(axis=2).clip(0, 255)
        strong = strength[strength > intensity_threshold]
        scale = max(FAINTEST, float(np.median(strong))) if strong.size else FAINTEST
        lines: np.ndarray = (strength / scale * 127).clip(0, 255).astype(np.uint8)
        return lines

    return each_frame(image_bhwc, resolution, recipe)


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
    output="soft white lines on black",
    description="Lines of a drawing or photograph by their darkness, without a network: for the lineart ControlNets.",
    aliases=("LineartStandardPreprocessor", "lineart_standard"),
)
