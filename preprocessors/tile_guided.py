"""Guided tile: blurred, smoothed between its edges, smaller and larger again, for the SDXL tile models that were trained on such pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from .frames import each_frame
from .gaussians import blurred_8_bit, mirrored
from .preprocessor import Parameter, Preprocessor
from .resampling import area, cubic, linear, nearest
from .sizing import Size

Step = Callable[[Any], Any]

A_LITTLE = 1e-2
"""In 8-bit steps. The recipe cuts them off; what is flat is a whole number but for rounding, and must not be speckled by it."""


def tile_guided(
    image_bhwc: Tensor,
    *,
    scale: float = 1.0,
    blur: float = 2.0,
    radius: int = 7,
    epsilon: float = 0.01,
    resolution: int = 0,
) -> Tensor:
    """Blurred (sigma `blur` / 2 pixels, kernel `blur` made odd), smoothed by a guided filter, and made `scale` times smaller and larger again.

    The filter has windows of 2 · int(`radius` / `scale`) + 1 pixels and leaves what varies by more than `epsilon` (variance of 0..1). (B, H, W, 3)
    float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter side at `resolution` (0: its own). TTPlanet's "guided filter" recipe.
    """
    import cv2  # here, because importing the pack must stay fast

    kernel, window = int(blur) | 1, 2 * int(radius / scale) + 1

    def smaller(height: int, width: int) -> Size:
        return Size(max(1, int(height / scale)), max(1, int(width / scale)))

    def recipe(picture: np.ndarray) -> np.ndarray:
        height, width = picture.shape[:2]
        small, whole = smaller(height, width)[::-1], (width, height)
        values = cv2.GaussianBlur(picture, (kernel, kernel), blur / 2).astype(np.float32) / 255
        found = smoothed(
            [np.ascontiguousarray(values[..., channel]) for channel in range(3)],
            epsilon,
            box=lambda x: cv2.blur(x, (window, window)),
            down=lambda x: cv2.resize(x, small, interpolation=cv2.INTER_NEAREST),
            up=lambda x: cv2.resize(x, whole, interpolation=cv2.INTER_LINEAR),
        )
        eight = (np.stack(found, axis=2) * 255 + A_LITTLE).clip(0, 255).astype(np.uint8)
        eight = cv2.resize(eight, small, interpolation=cv2.INTER_AREA)
        larger: np.ndarray = cv2.resize(eight, whole, interpolation=cv2.INTER_CUBIC)
        return larger

    def batched(picture_bhwc: Tensor) -> Tensor:
        whole = Size(*picture_bhwc.shape[1:3])
        small = smaller(*whole)
        values = blurred_8_bit(picture_bhwc, blur / 2, kernel) / 255
        found = smoothed(
            [values[..., channel, None] for channel in range(3)],
            epsilon,
            box=lambda x: box_mean(x, window),
            down=lambda x: nearest(x, small),
            up=lambda x: linear(x, whole),
        )
        eight = (torch.cat(found, dim=3) * 255 + A_LITTLE).clamp(0, 255).floor()
        return cubic(area(eight, small, eight_bit=True), whole, eight_bit=True) / 255

    return each_frame(image_bhwc, resolution, recipe, batched)


def smoothed(channels: Sequence[Any], epsilon: float, box: Step, down: Step, up: Step) -> list[Any]:
    """A colour picture through the guided filter with itself as the guide, as three arrays or tensors like the ones it gets, 0..1.

    He, Sun, Tang, "Guided Image Filtering" (2013), eq. 14 to 19, and "Fast Guided Filter" (2015). Where guide and input are the same, with
    Σ the covariance and μ the mean in a window, a = (Σ + εU)⁻¹ Σ = U − m and b = μ − a μ = m μ for m = ε (Σ + εU)⁻¹.
    """
    small = [down(channel) for channel in channels]
    means = [box(channel) for channel in small]

    def covariance(i: int, j: int) -> Any:
        return box(small[i] * small[j]) - means[i] * means[j] + (epsilon if i == j else 0.0)

    xx, xy, xz, yy, yz, zz = (covariance(i, j) for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)))
    first, second, third = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    share = epsilon / (xx * first + xy * second + xz * third)
    m: list[list[Any]] = [
        [first * share, second * share, third * share],
        [None, (xx * zz - xz * xz) * share, (xz * xy - xx * yz) * share],
        [None, None, (xx * yy - xy * xy) * share],
    ]
    m[1][0], m[2][0], m[2][1] = m[0][1], m[0][2], m[1][2]
    offsets = [up(box(row[0] * means[0] + row[1] * means[1] + row[2] * means[2])) for row in m]
    wide = {(i, j): up(box(m[i][j])) for i in range(3) for j in range(i, 3)}
    return [
        channels[i] + offsets[i] - sum(wide[min(i, j), max(i, j)] * channels[j] for j in range(3)) for i in range(3)
    ]


def box_mean(values_bhwc: Tensor, window: int) -> Tensor:
    """The mean over a square, borders mirrored: cv2.blur."""
    for dimension in (1, 2):
        places = mirrored(values_bhwc.shape[dimension], window // 2)
        values_bhwc = values_bhwc.index_select(dimension, torch.from_numpy(places).to(values_bhwc.device))
    columns_first = avg_pool2d(values_bhwc.movedim(-1, 1), (1, window), stride=1)
    return avg_pool2d(columns_first, (window, 1), stride=1).movedim(1, -1)


TILE_GUIDED = Preprocessor(
    id="TileGuided",
    name="Tile Guided Filter",
    function=tile_guided,
    parameters=(
        Parameter(
            "scale", default=1.0, minimum=1.0, maximum=8.0, step=0.05, tooltip="How many times smaller in between."
        ),
        Parameter("blur", default=2.0, minimum=1.0, maximum=10.0, step=0.1, tooltip="Blur in pixels."),
        Parameter("radius", default=7, minimum=1, maximum=20, step=1, tooltip="Pixels around each that are smoothed."),
        Parameter(
            "epsilon",
            default=0.01,
            minimum=0.001,
            maximum=0.1,
            step=0.001,
            tooltip="How strong an edge has to be to stay: more smooths more.",
        ),
    ),
    output="the picture without its fine details",
    description="A picture smoothed between its edges for SDXL tile models such as TTPlanet's.",
    aliases=("TTPlanet_TileGF_Preprocessor", "tile guided filter", "TTPlanet"),
)
