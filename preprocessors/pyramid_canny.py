"""Canny edges over nine scales."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .canny_torch import canny_edges
from .frames import each_frame
from .preprocessor import Parameter, Preprocessor
from .resampling import area, linear
from .sizing import Size

SCALES = tuple(tenths / 10 for tenths in range(2, 11))
KEPT = 0.75
"""Share of the coarser scales in each step; Fooocus, extras/preprocessors.py."""
PERCENTILES = (1, 99)


def pyramid_canny(image_bhwc: Tensor, *, low: int = 64, high: int = 128, resolution: int = 0) -> Tensor:
    """Grey edges: white where there is an edge at every scale.

    `low` and `high` are Canny's thresholds, 0..255, in each channel. (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter side
    at `resolution` (0: its own).
    """
    import cv2  # here, because importing the pack must stay fast

    def recipe(picture: np.ndarray) -> np.ndarray:
        height, width = picture.shape[:2]
        total: np.ndarray | None = None
        for scale in SCALES:
            size = (max(1, int(width * scale)), max(1, int(height * scale)))
            small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
            channels = [cv2.Canny(np.ascontiguousarray(small[..., channel]), low, high) for channel in range(3)]
            edges = np.stack(channels, axis=2).astype(np.float32) / 255.0
            if total is not None:
                edges = cv2.resize(total, size, interpolation=cv2.INTER_LINEAR) * KEPT + edges * (1.0 - KEPT)
            total = edges
        assert total is not None  # there are scales
        summed = total.sum(axis=2)
        lowest, highest = (np.percentile(summed, percentile) for percentile in PERCENTILES)
        if highest <= lowest:
            return np.zeros_like(summed, dtype=np.uint8) if summed.max() <= lowest else summed > lowest
        stretched: np.ndarray = ((summed - lowest) / (highest - lowest) * 255).clip(0, 255).astype(np.uint8)
        return stretched

    def batched(picture: Tensor) -> Tensor:
        count, height, width, channels = picture.shape
        total: Tensor | None = None
        for scale in SCALES:
            size = Size(max(1, int(height * scale)), max(1, int(width * scale)))
            apart = area(picture, size, eight_bit=True).movedim(-1, 1).flatten(0, 1).unsqueeze(-1)
            edges = canny_edges(apart, low, high).view(count, channels, *size).movedim(1, -1).to(torch.float32)
            total = edges if total is None else linear(total, size).mul_(KEPT).add_(edges, alpha=1.0 - KEPT)
        assert total is not None  # there are scales
        red, green, blue = total.unbind(-1)
        return torch.stack([stretched_8_bit(frame) for frame in red + green + blue])

    return each_frame(image_bhwc, resolution, recipe, batched)


def stretched_8_bit(values: Tensor) -> Tensor:
    """Between its `PERCENTILES` from black to white; white above them where they are one. (H, W) float32 -> uint8, without waiting for the device."""
    ordered = values.flatten().sort().values
    lowest, highest = (percentile(ordered, share / 100) for share in PERCENTILES)
    flat = highest <= lowest
    between = ((values - lowest) / torch.where(flat, 1, highest - lowest) * 255).clamp_(0, 255)
    return torch.where(flat, (values > lowest) * 255, between).to(torch.uint8)


def percentile(ordered: Tensor, share: float) -> Tensor:
    """numpy's, of numbers in their order."""
    place = (len(ordered) - 1) * share
    first = int(place)
    part = place - first
    before, after = ordered[first], ordered[min(first + 1, len(ordered) - 1)]
    return before + (after - before) * part if part < 0.5 else after - (after - before) * (1 - part)


PYRAMID_CANNY = Preprocessor(
    id="PyramidCanny",
    name="Pyramid Canny",
    function=pyramid_canny,
    parameters=(
        Parameter("low", default=64, minimum=0, maximum=255, step=1, tooltip="Edges weaker than this are dropped."),
        Parameter("high", default=128, minimum=0, maximum=255, step=1, tooltip="Edges stronger than this always stay."),
    ),
    values_per_pixel=36,
    output="grey edges on black",
    description="Canny edges at nine scales in one: large shapes bright, details faint.",
    aliases=("PyraCannyPreprocessor", "pyracanny", "fooocus canny"),
)
