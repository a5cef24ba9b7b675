"""Luminance and intensity: what the recolour models read of a picture."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from .frames import each_frame
from .preprocessor import Parameter, Preprocessor

AS_TRAINED, CORRECTED = "as trained", "corrected"
CHANNELS = (AS_TRAINED, CORRECTED)

GAMMA = Parameter(
    "gamma",
    default=1.0,
    minimum=0.1,
    maximum=2.0,
    step=0.01,
    tooltip="Below 1 brightens the dark parts, above 1 darkens.",
)


def recolor_luminance(
    image_bhwc: Tensor, *, channels: str = AS_TRAINED, gamma: float = 1.0, resolution: int = 0
) -> Tensor:
    """CIE L* of every pixel, to the power `gamma`, grey.

    The models were trained on an L* in which red and blue were exchanged (sd-webui-controlnet, recolor_luminance): "as trained" makes the same,
    "corrected" the true one. (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter side at `resolution` (0: its own).
    """
    import cv2  # here, because importing the pack must stay fast

    code = cv2.COLOR_BGR2LAB if channels == AS_TRAINED else cv2.COLOR_RGB2LAB
    return each_frame(image_bhwc, resolution, lambda picture: powered(cv2.cvtColor(picture, code)[..., 0], gamma))


def recolor_intensity(image_bhwc: Tensor, *, gamma: float = 1.0, resolution: int = 0) -> Tensor:
    """The brightest channel of every pixel (HSV's value), to the power `gamma`, grey.

    (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter side at `resolution` (0: its own).
    """
    return each_frame(image_bhwc, resolution, lambda picture: powered(picture.max(axis=2), gamma))


def powered(grey: np.ndarray, gamma: float) -> np.ndarray:
    """8-bit values to the power `gamma` of their 0..1, 8-bit again, truncated as the recipe does."""
    values: np.ndarray = ((grey.astype(np.float32) / 255.0) ** gamma * 255.0).clip(0, 255).astype(np.uint8)
    return values


RECOLOR_LUMINANCE = Preprocessor(
    id="RecolorLuminance",
    name="Recolor Luminance",
    function=recolor_luminance,
    parameters=(
        Parameter(
            "channels",
            default=AS_TRAINED,
            options=CHANNELS,
            tooltip="The recolour models were trained on a luminance with red and blue exchanged. corrected: the true one.",
        ),
        GAMMA,
    ),
    output="the picture's lightness, grey",
    description="The lightness of a picture whose colours are to be made anew: for the recolour models.",
    aliases=("ImageLuminanceDetector", "recolor_luminance", "colorize", "grayscale"),
)

RECOLOR_INTENSITY = Preprocessor(
    id="RecolorIntensity",
    name="Recolor Intensity",
    function=recolor_intensity,
    parameters=(GAMMA,),
    output="the brightest channel, grey",
    description="The intensity of a picture whose colours are to be made anew: for the recolour models.",
    aliases=("ImageIntensityDetector", "recolor_intensity", "colorize", "grayscale"),
)
