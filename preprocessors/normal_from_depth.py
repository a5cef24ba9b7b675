"""Surface normals from a picture of depth."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .gaussians import mirrored
from .nearness import spread
from .pixels import check_picture
from .preprocessor import Parameter, Preprocessor
from .sizing import resized

CHANNELS = {"z y x": (2, 1, 0), "x y z": (0, 1, 2)}
"""ControlNet 1.0's normal model was trained on MiDaS's normals with x in blue and z in red (lllyasviel/ControlNet, annotator/midas); 1.1's on
x in red (red is left, green is up, blue is to the viewer)."""
RANGE = 1000.0
"""MiDaS's numbers, for which `a` is meant, span hundreds to thousands."""


def normal_from_depth(
    image_bhwc: Tensor,
    *,
    channels: str = "z y x",
    a: float = 2 * math.pi,
    background: float = 0.1,
    depth_range: float = RANGE,
    resolution: int = 0,
) -> Tensor:
    """(x, y, a) at unit length, where x and y are the Sobel derivatives of the depth (near is white, times `depth_range`), 0 in the background.

    The background is what is below `background` of the frame's range. (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, 0.5 for 0, the
    shorter side at `resolution` (0: its own).
    """
    near = depth_of(image_bhwc, resolution)
    far = (spread(near) < background).unsqueeze(-1)
    slopes = torch.stack(derivatives(near * depth_range), dim=3).masked_fill(far, 0)
    normals = torch.cat([slopes, torch.full_like(slopes[..., :1], a)], dim=3)
    length = (normals[..., 0] ** 2 + normals[..., 1] ** 2 + normals[..., 2] ** 2).sqrt().unsqueeze(-1)
    # Nothing has a direction where a is 0 and the depth is flat.
    normals = normals / length.clamp(min=torch.finfo(torch.float32).tiny)
    return (normals[..., list(CHANNELS[channels])] * 0.5 + 0.5).clamp(0, 1)


def depth_of(image_bhwc: Tensor, resolution: int) -> Tensor:
    """The mean of a picture's channels, (B, H', W') float32, resized in floats. Raises PreprocessorError."""
    check_picture(image_bhwc, "image")
    red, green, blue = resized(image_bhwc.float(), resolution).unbind(dim=3)
    return (red + green + blue) / 3


def derivatives(values_bhw: Tensor) -> tuple[Tensor, Tensor]:
    """Along the columns and along the rows, by Sobel's 3×3, borders mirrored."""
    for dimension in (1, 2):
        places = torch.from_numpy(mirrored(values_bhw.shape[dimension], 1)).to(values_bhw.device)
        values_bhw = values_bhw.index_select(dimension, places)

    def weighted(values: Tensor, dimension: int, weights: tuple[int, int, int]) -> Tensor:
        count = values.shape[dimension] - 2
        parts = (weight * values.narrow(dimension, place, count) for place, weight in enumerate(weights) if weight)
        first, *rest = parts
        for part in rest:
            first = first + part
        return first

    slope, smooth = (-1, 0, 1), (1, 2, 1)
    return weighted(weighted(values_bhw, 2, slope), 1, smooth), weighted(weighted(values_bhw, 1, slope), 2, smooth)


NORMAL_FROM_DEPTH = Preprocessor(
    id="NormalFromDepth",
    name="Normal from Depth",
    function=normal_from_depth,
    parameters=(
        Parameter(
            "channels",
            default="z y x",
            options=tuple(CHANNELS),
            tooltip="What is in red, green and blue: z y x for ControlNet 1.0's normal model, x y z for 1.1's (normalbae).",
        ),
        Parameter(
            "a",
            default=2 * math.pi,
            minimum=0.0,
            maximum=5 * math.pi,
            step=0.01,
            tooltip="How much everything is turned to the viewer: less shows more relief.",
        ),
        Parameter(
            "background",
            default=0.1,
            minimum=0.0,
            maximum=1.0,
            step=0.01,
            tooltip="What is farther than this, of the picture's 0..1, is flat.",
        ),
        Parameter(
            "depth_range",
            default=RANGE,
            minimum=0.01,
            maximum=100_000.0,
            step=0.01,
            tooltip="What white is in numbers. a is meant for MiDaS's, which go to a thousand and more.",
        ),
    ),
    output="surface normals as colours",
    description="Normals of any picture of depth in which near is white: for the normal ControlNets.",
    aliases=("normal map", "depth to normal", "normal_midas", "midas normal"),
)
