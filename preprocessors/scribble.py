"""Dark strokes of a drawing as white scribbles."""

from __future__ import annotations

from torch import Tensor

from .frames import VALUES_PER_PIXEL, darkest, each_frame
from .preprocessor import Preprocessor

DARK = 127
"""lllyasviel/ControlNet, gradio_scribble2image.py."""


def scribble(image_bhwc: Tensor, *, resolution: int = 0) -> Tensor:
    """White where the darkest channel is below 127, black elsewhere.

    (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 of 0 and 1, the shorter side at `resolution` (0: its own).
    """
    return each_frame(
        image_bhwc,
        resolution,
        lambda picture: darkest(picture) < DARK,
        lambda picture: picture.amin(-1) < DARK,
    )


SCRIBBLE = Preprocessor(
    id="Scribble",
    name="Scribble",
    function=scribble,
    parameters=(),
    values_per_pixel=VALUES_PER_PIXEL,
    output="white strokes on black",
    description="A drawing in dark strokes on a light ground, as the scribble ControlNets expect it: white on black.",
    aliases=("ScribblePreprocessor", "scribble lines", "sketch", "drawing"),
)
