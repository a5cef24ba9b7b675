"""XDoG: strokes from a difference of Gaussians."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from .frames import VALUES_PER_PIXEL, darkest, each_frame
from .gaussians import blurred
from .preprocessor import Parameter, Preprocessor

FINE, COARSE = 0.5, 5.0
"""Sigmas in pixels: sd-webui-controlnet's scribble_xdog."""


def xdog(image_bhwc: Tensor, *, threshold: int = 32, resolution: int = 0) -> Tensor:
    """White strokes where the picture is darker than its surroundings, black elsewhere.

    `threshold` (1..64) is compared with twice the difference of the two blurs, in 8-bit steps. (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32
    of 0 and 1, the shorter side at `resolution` (0: its own).
    """
    import cv2  # here, because importing the pack must stay fast

    # 2 (255 − dog) > threshold, dog in whole steps.
    darker = 255 - threshold / 2

    def recipe(picture: np.ndarray) -> np.ndarray:
        values = picture.astype(np.float32)
        fine, coarse = (cv2.GaussianBlur(values, (0, 0), sigma) for sigma in (FINE, COARSE))
        dog = (255 - darkest(coarse - fine)).clip(0, 255).astype(np.uint8)
        strokes: np.ndarray = dog < darker
        return strokes

    def batched(picture: Tensor) -> Tensor:
        difference = blurred(picture, COARSE).sub_(blurred(picture, FINE)).amin(-1)
        return (255 - difference).clamp_(0, 255).floor_() < darker

    return each_frame(image_bhwc, resolution, recipe, batched)


XDOG = Preprocessor(
    id="XDoG",
    name="XDoG Scribble",
    function=xdog,
    parameters=(
        Parameter(
            "threshold", default=32, minimum=1, maximum=64, step=1, tooltip="Lower gives more and thicker strokes."
        ),
    ),
    values_per_pixel=VALUES_PER_PIXEL,
    output="white strokes on black",
    description="Scribble-like strokes of a photograph, without a network: for the scribble ControlNets.",
    aliases=("Scribble_XDoG_Preprocessor", "scribble_xdog", "difference of gaussians"),
)
