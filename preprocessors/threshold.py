"""White where all channels are bright."""

from __future__ import annotations

from torch import Tensor

from .frames import VALUES_PER_PIXEL, darkest, each_frame
from .preprocessor import Parameter, Preprocessor


def threshold(image_bhwc: Tensor, *, level: int = 127, resolution: int = 0) -> Tensor:
    """White where the darkest channel is above `level` (0..255), black elsewhere.

    (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 of 0 and 1, the shorter side at `resolution` (0: its own).
    """
    return each_frame(
        image_bhwc,
        resolution,
        lambda picture: darkest(picture) > level,
        lambda picture: picture.amin(-1) > level,
    )


THRESHOLD = Preprocessor(
    id="Threshold",
    name="Threshold",
    function=threshold,
    parameters=(
        Parameter(
            "level",
            default=127,
            minimum=0,
            maximum=255,
            step=1,
            tooltip="White where red, green and blue are all above this.",
        ),
    ),
    values_per_pixel=VALUES_PER_PIXEL,
    output="white where it is bright, on black",
    description="Splits the picture at the brightness of its darkest channel.",
    aliases=("threshold preprocessor", "black and white"),
)
