"""A Gaussian blur."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .frames import VALUES_PER_PIXEL, each_frame
from .gaussians import blurred_8_bit
from .preprocessor import Parameter, Preprocessor


def blur(image_bhwc: Tensor, *, sigma: float = 9.0, resolution: int = 0) -> Tensor:
    """Blurred with a Gaussian of `sigma` pixels. (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter side at `resolution`
    (0: its own).
    """
    import cv2  # here, because importing the pack must stay fast

    def recipe(picture: np.ndarray) -> np.ndarray:
        blurred: np.ndarray = cv2.GaussianBlur(picture, (0, 0), sigma)
        return blurred

    return each_frame(image_bhwc, resolution, recipe, lambda picture: blurred_8_bit(picture, sigma).to(torch.uint8))


BLUR = Preprocessor(
    id="Blur",
    name="Blur",
    function=blur,
    parameters=(Parameter("sigma", default=9.0, minimum=0.01, maximum=64.0, step=0.01, tooltip="Blur in pixels."),),
    values_per_pixel=VALUES_PER_PIXEL,
    output="the picture, blurred",
    description="A Gaussian blur: for the blur and tile controls.",
    aliases=("blur_gaussian", "gaussian"),
)
