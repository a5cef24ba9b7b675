"""Simple tile: smaller, larger, blurred, for the SDXL tile models that were trained on blurred pictures."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .frames import VALUES_PER_PIXEL, each_frame
from .gaussians import blurred_8_bit
from .preprocessor import Parameter, Preprocessor
from .resampling import area, lanczos_8_bit
from .sizing import Size


def tile_simple(image_bhwc: Tensor, *, scale: float = 1.0, blur: float = 2.0, resolution: int = 0) -> Tensor:
    """Made smaller `scale` times by area averaging, larger again by Lanczos, and blurred (sigma `blur` / 2 pixels, kernel `blur` made odd).

    (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter side at `resolution` (0: its own). TTPlanet's "simple" recipe.
    """
    import cv2  # here, because importing the pack must stay fast

    kernel = int(blur) | 1

    def recipe(picture: np.ndarray) -> np.ndarray:
        height, width = picture.shape[:2]
        small = (max(1, int(width / scale)), max(1, int(height / scale)))
        found = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
        found = cv2.resize(found, (width, height), interpolation=cv2.INTER_LANCZOS4)
        blurred: np.ndarray = cv2.GaussianBlur(found, (kernel, kernel), blur / 2)
        return blurred

    def batched(picture: Tensor) -> Tensor:
        size = Size(*picture.shape[1:3])
        small = area(picture, Size(*(max(1, int(side / scale)) for side in size)), eight_bit=True)
        return blurred_8_bit(lanczos_8_bit(small, size), blur / 2, kernel).to(torch.uint8)

    return each_frame(image_bhwc, resolution, recipe, batched)


TILE_SIMPLE = Preprocessor(
    id="TileSimple",
    name="Tile Simple",
    function=tile_simple,
    parameters=(
        Parameter(
            "scale", default=1.0, minimum=1.0, maximum=8.0, step=0.05, tooltip="How many times smaller in between."
        ),
        Parameter("blur", default=2.0, minimum=1.0, maximum=10.0, step=0.1, tooltip="Blur in pixels."),
    ),
    values_per_pixel=VALUES_PER_PIXEL,
    output="the picture, blurred",
    description="A blurred picture for SDXL tile models such as TTPlanet's and xinsir's.",
    aliases=("TTPlanet_TileSimple_Preprocessor", "tile blur"),
)
