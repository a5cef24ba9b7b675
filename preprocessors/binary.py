"""Black and white at one brightness."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .frames import VALUES_PER_PIXEL, each_frame
from .preprocessor import Parameter, Preprocessor

OTSU = (0, 255)
"""Thresholds that stand for Otsu's, which is found for each picture: no pixel or every pixel would be white at them."""

GREY_WEIGHTS, GREY_STEPS = (9798, 19235, 3735), 2**15
SMALLEST_SHARE = float(np.finfo(np.float32).eps)


def binary(image_bhwc: Tensor, *, threshold: int = 100, resolution: int = 0) -> Tensor:
    """White where the picture is brighter than `threshold` (0..255, of OpenCV's grey), black elsewhere; 0 and 255 choose Otsu's threshold.

    (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 of 0 and 1, the shorter side at `resolution` (0: its own).
    """
    import cv2  # here, because importing the pack must stay fast

    method = cv2.THRESH_BINARY | (cv2.THRESH_OTSU if threshold in OTSU else 0)

    def recipe(picture: np.ndarray) -> np.ndarray:
        white: np.ndarray = cv2.threshold(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), threshold, 255, method)[1]
        return white

    def batched(picture: Tensor) -> Tensor:
        grey = grey_8_bit(picture)
        return grey > (otsu_thresholds(grey) if threshold in OTSU else threshold)

    return each_frame(image_bhwc, resolution, recipe, batched)


def grey_8_bit(picture_bhwc: Tensor) -> Tensor:
    """OpenCV's grey of 8-bit RGB pictures. (B, H, W, 3) whole numbers 0..255 -> (B, H, W) float32 of whole numbers."""
    red, green, blue = (channel * weight for channel, weight in zip(picture_bhwc.unbind(-1), GREY_WEIGHTS, strict=True))
    return (red + green + blue).add_(GREY_STEPS / 2).div_(GREY_STEPS).floor_()


def otsu_thresholds(grey_bhw: Tensor) -> Tensor:
    """(B, 1, 1) float32: the threshold of each frame at which its two sides differ most, where the frames are."""
    counts = torch.stack([torch.bincount(frame.flatten().to(torch.int64), minlength=256) for frame in grey_bhw])
    # 256 numbers for each frame; OpenCV computes with them in double precision, which not every accelerator has.
    found = [float(otsu_threshold(histogram)) for histogram in counts.cpu().numpy()]
    return torch.tensor(found, device=grey_bhw.device).view(-1, 1, 1)


def otsu_threshold(histogram: np.ndarray) -> int:
    """OpenCV's, from how many pixels have each of 256 values."""
    share = histogram / histogram.sum()
    mean = float((np.arange(256) * share).sum())
    below = mean_below = most = 0.0
    best = 0
    for value in range(256):
        mean_below *= below
        below += float(share[value])
        above = 1 - below
        if min(below, above) < SMALLEST_SHARE:
            continue
        mean_below = (mean_below + value * float(share[value])) / below
        between = below * above * (mean_below - (mean - below * mean_below) / above) ** 2
        if between > most:
            most, best = between, value
    return best


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
    values_per_pixel=VALUES_PER_PIXEL,
    output="white where it is bright, on black",
    description="Splits the picture into white and black at one brightness.",
    aliases=("BinaryPreprocessor", "binary lines", "threshold", "black and white", "otsu"),
)
