"""Canny edges as the ControlNets were trained on: OpenCV's, on the colour picture, without a blur before it."""

from __future__ import annotations

import math

from torch import Tensor

from .canny_torch import canny_edges
from .errors import PreprocessorError
from .frames import VALUES_PER_PIXEL, each_frame
from .preprocessor import Parameter, Preprocessor


def canny(image_bhwc: Tensor, *, low: float = 100, high: float = 200, resolution: int = 0) -> Tensor:
    """White one-pixel edges on black.

    image_bhwc: (B, H, W, 3) float, 0..1, any device. Returns (B, H', W', 3) float32 of 0 and 1 on that device, where H', W'
    is the picture's size with its shorter side at `resolution` (0: its own size).
    `low` and `high` are OpenCV's hysteresis thresholds, 0..255, of the L1 norm of the 3x3 Sobel gradient of the 8-bit
    picture, per pixel in the channel where it is largest; a low above the high is exchanged with it, as OpenCV does.
    Raises PreprocessorError for anything but finite RGB pictures, and for thresholds outside 0..255.
    """
    import cv2  # here, because importing the pack must stay fast

    for name, value in (("low", low), ("high", high)):
        if not (math.isfinite(value) and 0 <= value <= 255):
            raise PreprocessorError(
                f"{name}: found {value}, but a threshold from 0 to 255 was expected; "
                "the usual pair is low 100, high 200."
            )
    return each_frame(
        image_bhwc,
        resolution,
        lambda picture: cv2.Canny(picture, low, high) > 0,
        lambda picture: canny_edges(picture, low, high),
    )


CANNY = Preprocessor(
    id="Canny",
    name="Canny",
    function=canny,
    parameters=(
        Parameter(
            "low",
            default=100,
            minimum=0,
            maximum=255,
            step=1,
            tooltip="Edges weaker than this are dropped; between low and high they stay if they touch a strong one.",
        ),
        Parameter(
            "high",
            default=200,
            minimum=0,
            maximum=255,
            step=1,
            tooltip="Edges stronger than this always stay. Lower it to get more lines.",
        ),
    ),
    values_per_pixel=VALUES_PER_PIXEL,
    output="one-pixel white edges on black",
    description="OpenCV's Canny edge detector, as ControlNet canny and the edge-trained controls expect it.",
    aliases=("edge detection", "canny edge", "outline", "line art", "CannyEdgePreprocessor"),
)
