"""Luminance and intensity: what the recolour models read of a picture."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from .frames import VALUES_PER_PIXEL, each_frame
from .preprocessor import Parameter, Preprocessor

AS_TRAINED, CORRECTED = "as trained", "corrected"
CHANNELS = (AS_TRAINED, CORRECTED)

LINEAR_STEPS = 8 * 255
LUMINANCE_WEIGHTS, LUMINANCE_STEPS = (871, 2929, 296), 4096
"""Of linear red, green and blue: those of CIE Y, in OpenCV's steps."""

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
    table = powered(np.arange(256, dtype=np.uint8), gamma)

    def batched(picture: Tensor) -> Tensor:
        return looked_up(table, lightness(picture.flip(-1) if channels == AS_TRAINED else picture))

    return each_frame(image_bhwc, resolution, lambda picture: table[cv2.cvtColor(picture, code)[..., 0]], batched)


def recolor_intensity(image_bhwc: Tensor, *, gamma: float = 1.0, resolution: int = 0) -> Tensor:
    """The brightest channel of every pixel (HSV's value), to the power `gamma`, grey.

    (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter side at `resolution` (0: its own).
    """
    table = powered(np.arange(256, dtype=np.uint8), gamma)
    return each_frame(
        image_bhwc,
        resolution,
        lambda picture: table[brightest(picture)],
        lambda picture: looked_up(table, picture.amax(-1)),
    )


def powered(grey: np.ndarray, gamma: float) -> np.ndarray:
    """8-bit values to the power `gamma` of their 0..1, 8-bit again, truncated as the recipe does."""
    values: np.ndarray = ((grey.astype(np.float32) / 255.0) ** gamma * 255.0).clip(0, 255).astype(np.uint8)
    return values


def brightest(picture_hwc: np.ndarray) -> np.ndarray:
    """The largest channel of each pixel, (H, W)."""
    largest: np.ndarray = np.maximum(np.maximum(picture_hwc[..., 0], picture_hwc[..., 1]), picture_hwc[..., 2])
    return largest


def looked_up(table: np.ndarray, indices: Tensor) -> Tensor:
    """The table's entries at whole numbers, in their shape and on their device."""
    entries = torch.from_numpy(table).to(indices.device)
    return entries.index_select(0, indices.flatten().to(torch.int32)).view(indices.shape)


def lightness(picture_bhwc: Tensor) -> Tensor:
    """OpenCV's L* of 8-bit RGB pictures, 255 for 100, in the steps in which it computes. (B, H, W, 3) whole numbers -> (B, H, W)."""
    linear, lightest = lightness_tables()
    luminance: Tensor | None = None
    for channel, weight in zip(picture_bhwc.unbind(-1), LUMINANCE_WEIGHTS, strict=True):
        part = looked_up(linear, channel).mul_(weight)
        luminance = part if luminance is None else luminance.add_(part)
    assert luminance is not None  # there are channels
    return looked_up(lightest, luminance.add_(LUMINANCE_STEPS / 2).div_(LUMINANCE_STEPS).floor_())


@cache
def lightness_tables() -> tuple[np.ndarray, np.ndarray]:
    """The linear light of 8-bit values, 0..2040, and the 8-bit lightness of linear light in those steps, both as float32."""
    value = np.arange(256) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    light = np.arange(LINEAR_STEPS + 1) / LINEAR_STEPS
    root = np.where(light < 0.008856, light * 7.787 + 0.13793103448275862, np.cbrt(light))
    lightest = (296 * np.rint(root * 2**15) - (16 * 255 * 2**15 + 50) // 100 + 2**14) // 2**15
    return np.rint(linear * LINEAR_STEPS).astype(np.float32), lightest.clip(0, 255).astype(np.float32)


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
    values_per_pixel=VALUES_PER_PIXEL,
    output="the picture's lightness, grey",
    description="The lightness of a picture whose colours are to be made anew: for the recolour models.",
    aliases=("ImageLuminanceDetector", "image luminance", "recolor_luminance", "colorize", "grayscale"),
)

RECOLOR_INTENSITY = Preprocessor(
    id="RecolorIntensity",
    name="Recolor Intensity",
    function=recolor_intensity,
    parameters=(GAMMA,),
    values_per_pixel=VALUES_PER_PIXEL,
    output="the brightest channel, grey",
    description="The intensity of a picture whose colours are to be made anew: for the recolour models.",
    aliases=("ImageIntensityDetector", "image intensity", "recolor_intensity", "colorize", "grayscale"),
)
