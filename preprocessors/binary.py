"""Black and white at one brightness."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from .frames import each_frame
from .preprocessor import Parameter, Preprocessor

OTSU = (0, 255)
"""Thresholds that stand for Otsu's, which is found for each picture: no pixel or every pixel would be white at them."""


def binary(image_bhwc: Tensor, *, threshold: int = 100, resolution: int = 0) -> Tensor:
    """White where the picture is brighter than `threshold` (0..255, of OpenCV's grey), black elsewhere; 0 and 255 choose Otsu's threshold.

    (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 of 0 and 1, the shorter side at `resolution` (0: its own).
    """
    import cv2  # here, because importing the pack must stay fast

    method = cv2.THRESH_BINARY | (cv2.THRESH_OTSU if threshold in OTSU else 0)

    def recipe(picture: np.ndarray) -> np.ndarray:
        white: np.ndarray = cv2.threshold(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), threshold, 255, method)[1]
        return white

    return each_frame(image_bhwc, resolution, recipe)


BINARY = Preprocessor(
    id="Binary",
    name="Binary",
    function=binary,
    parameters=(
        Parameter(
            "threshold",
            default=100,
            minimum=0,
            maximum=255,
            step=1,
            tooltip="Brighter than this is white. 0 and 255: found for each picture (Otsu).",
        ),
    ),
    output="white where it is bright, on black",
    description="Splits the picture into white and black at one brightness.",
    aliases=("BinaryPreprocessor", "black and white", "otsu"),
)
