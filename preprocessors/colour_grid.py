"""A grid of the picture's colours."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .frames import VALUES_PER_PIXEL, each_frame
from .preprocessor import Parameter, Preprocessor
from .resampling import cubic, nearest
from .sizing import Size


def colour_grid(image_bhwc: Tensor, *, cell: int = 64, resolution: int = 0) -> Tensor:
    """Squares of about `cell` pixels, each of one colour, as the T2I-Adapter for colour was trained on.

    (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter side at `resolution` (0: its own).
    """
    import cv2  # here, because importing the pack must stay fast

    def recipe(picture: np.ndarray) -> np.ndarray:
        height, width = picture.shape[:2]
        small = (max(1, width // cell), max(1, height // cell))
        colours = cv2.resize(picture, small, interpolation=cv2.INTER_CUBIC)
        squares: np.ndarray = cv2.resize(colours, (width, height), interpolation=cv2.INTER_NEAREST)
        return squares

    def batched(picture: Tensor) -> Tensor:
        height, width = picture.shape[1:3]
        colours = cubic(picture, Size(max(1, height // cell), max(1, width // cell)), eight_bit=True)
        return nearest(colours, Size(height, width)).to(torch.uint8)

    return each_frame(image_bhwc, resolution, recipe, batched)


COLOUR_GRID = Preprocessor(
    id="ColorGrid",
    name="Color Grid",
    function=colour_grid,
    parameters=(
        Parameter(
            "cell", default=64, minimum=1, maximum=1024, step=1, tooltip="Side of a square in pixels; 64 as trained."
        ),
    ),
    values_per_pixel=VALUES_PER_PIXEL,
    output="squares of one colour each",
    description="The picture's colours in coarse squares: for the T2I-Adapter for colour.",
    aliases=("ColorPreprocessor", "t2ia_color_grid", "color palette", "color pallete", "colour", "palette"),
)
