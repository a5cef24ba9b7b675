"""Tile: the picture without its details, as ControlNet 1.1's tile model was trained on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .frames import VALUES_PER_PIXEL, each_frame
from .preprocessor import Parameter, Preprocessor
from .resampling import area, cubic
from .sizing import Size

MULTIPLE = 64
"""Sides are rounded to it before they are halved (controlnet_aux, tile)."""


def tile(image_bhwc: Tensor, *, halvings: int = 3, resolution: int = 0) -> Tensor:
    """Made smaller by area averaging, 2^halvings times, and larger again by as many steps of OpenCV's pyrUp.

    (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter side at `resolution` (0: its own). A picture whose sides are no
    multiples of 64 goes through the nearest ones and is brought back to its size.
    """
    import cv2  # here, because importing the pack must stay fast

    def rounded(side: int) -> int:
        return max(MULTIPLE, round(side / MULTIPLE) * MULTIPLE)

    def recipe(picture: np.ndarray) -> np.ndarray:
        height, width = picture.shape[:2]
        small = tuple(max(1, rounded(side) >> halvings) for side in (width, height))
        found: np.ndarray = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
        for _ in range(halvings):
            found = cv2.pyrUp(found)
        if found.shape[:2] != (height, width):
            found = cv2.resize(found, (width, height), interpolation=cv2.INTER_CUBIC)
        return found

    def batched(picture: Tensor) -> Tensor:
        size = Size(*picture.shape[1:3])
        found = area(picture, Size(*(max(1, rounded(side) >> halvings) for side in size)), eight_bit=True)
        for _ in range(halvings):
            found = doubled(found)
        return cubic(found, size, eight_bit=True).to(torch.uint8)

    return each_frame(image_bhwc, resolution, recipe, batched)


def doubled(picture_bhwc: Tensor) -> Tensor:
    """OpenCV's pyrUp of 8-bit pictures: binomial weights, the left and upper border mirrored, the others repeated. All whole numbers, float32."""
    for dimension in (2, 1):
        last = picture_bhwc.shape[dimension] - 1
        places = torch.tensor([min(1, last), *range(last + 1), last], device=picture_bhwc.device)
        wide = picture_bhwc.index_select(dimension, places)
        before, here, after = (wide.narrow(dimension, start, last + 1) for start in range(3))
        even, odd = before + after + 6 * here, (here + after).mul_(4)
        picture_bhwc = torch.stack([even, odd], dimension + 1).flatten(dimension, dimension + 1)
    return picture_bhwc.add_(32).mul_(1 / 64).floor_()


TILE = Preprocessor(
    id="Tile",
    name="Tile",
    function=tile,
    parameters=(
        Parameter(
            "halvings",
            default=3,
            minimum=1,
            maximum=10,
            step=1,
            tooltip="How often the sides are halved and doubled: 3 leaves an eighth of the detail.",
        ),
    ),
    values_per_pixel=VALUES_PER_PIXEL,
    output="the picture without its details",
    description="A picture whose details the tile ControlNets are to make anew: for upscaling and for variations.",
    aliases=("TilePreprocessor", "tile_resample", "upscale"),
)
