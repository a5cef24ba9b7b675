"""Placing: where the pixels of a hint and of its mask come to lie on the latent's canvas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from ..residuals.masks import average
from .areas import Area
from .errors import ControlError
from .network import HINT_PIXELS_PER_CELL

Sizing = Literal["crop", "fit", "stretch"]
SIZINGS: tuple[Sizing, ...] = get_args(Sizing)
Fill = Literal["black", "white", "edge"]
FILLS: tuple[Fill, ...] = get_args(Fill)

ASPECT_TOLERANCE = 0.01
"""Relative difference in aspect up to which a mask is taken for one of the hint: sizes rounded to whole cells differ that much."""


@dataclass(frozen=True)
class Placing:
    """How a picture of another aspect than the canvas is laid on it.

    *crop* fills the canvas and cuts off what is over, as the stock nodes do; *fit* shows all of the picture and fills the rest with black, white
    or the pixels of its edge; *stretch* pulls it to the canvas. Picture and canvas have the same centre.
    """

    sizing: Sizing = "crop"
    fill: Fill = "black"

    def __post_init__(self) -> None:
        for name, value, known in (("sizing", self.sizing, SIZINGS), ("fill", self.fill, FILLS)):
            if value not in known:
                raise ControlError(
                    f'{name} is "{value}", but one of {", ".join(known)} was expected; choose one of them.'
                )


@dataclass(frozen=True)
class Span:
    """One axis: the pixels `start` … `start + length` of the picture fill the canvas pixels `offset` … `offset + filled`."""

    start: int
    length: int
    offset: int
    filled: int


def spans(size: tuple[int, int], canvas: tuple[int, int], placing: Placing) -> tuple[Span, Span]:
    """Rows and columns of a picture of `size` (height, width) on a canvas, both in pixels. No span is ever empty."""
    (height, width), (rows, columns) = size, canvas
    if placing.sizing == "crop":
        # The host's common_upscale to the last digit; it fails where the rounding leaves nothing of a very long picture.
        aspect, wanted = width / height, columns / rows
        x = round((width - width * (wanted / aspect)) / 2) if aspect > wanted else 0
        y = round((height - height * (aspect / wanted)) / 2) if aspect < wanted else 0
        x, y = min(x, (width - 1) // 2), min(y, (height - 1) // 2)
        return Span(y, height - 2 * y, 0, rows), Span(x, width - 2 * x, 0, columns)
    filled = [rows, columns]
    if placing.sizing == "fit":
        scale = min(rows / height, columns / width)
        filled = [max(1, min(whole, round(length * scale))) for whole, length in ((rows, height), (columns, width))]
    return (
        Span(0, height, (rows - filled[0]) // 2, filled[0]),
        Span(0, width, (columns - filled[1]) // 2, filled[1]),
    )


def check_area(area: Area | None, height: int, width: int) -> Area:
    """The area, or all of the canvas. Raises ControlError for one that is not on the canvas of `height` × `width` cells."""
    h, w, y, x = area or (height, width, 0, 0)
    if min(h, w) < 1 or min(y, x) < 0 or y + h > height or x + w > width:
        raise ControlError(
            f"area of the conditioning is {w}×{h} latent cells at ({x}, {y}), but it must lie inside of the {width}×{height} cells of the latent; "
            "correct its size or place."
        )
    return h, w, y, x


def place_hint(
    hint_bchw: Tensor,
    height: int,
    width: int,
    placing: Placing,
    area: Area | None = None,
    pixels_per_cell: int = HINT_PIXELS_PER_CELL,
    smooth: bool = False,
) -> Tensor:
    """The hint (N, C, H, W) for a canvas of `height` × `width` latent cells, or for an area (height, width, y, x in cells) of it.

    The picture is sized for the whole canvas and then cut, so it lies where it lies without an area and nothing is squeezed. The nearest pixel is
    taken in every mode: hints are lines, labels and codes, whose blends mean nothing, and the stock nodes take it. Only what is a picture by itself
    is sized `smooth`.
    """
    h, w, y, x = (cells * pixels_per_cell for cells in check_area(area, height, width))
    rows, columns = spans(
        (hint_bchw.shape[-2], hint_bchw.shape[-1]), (height * pixels_per_cell, width * pixels_per_cell), placing
    )
    part = hint_bchw.narrow(-2, rows.start, rows.length).narrow(-1, columns.start, columns.length)
    size = (rows.filled, columns.filled)
    sized: Tensor = (
        interpolate(part.float(), size=size, mode="bilinear", antialias=True)
        if smooth
        else interpolate(part, size=size, mode="nearest-exact")
    )
    rest = (
        columns.offset,
        width * pixels_per_cell - columns.offset - columns.filled,
        rows.offset,
        height * pixels_per_cell - rows.offset - rows.filled,
    )
    if any(rest):
        if placing.fill == "edge":
            sized = pad(sized, rest, mode="replicate")
        else:
            sized = pad(sized, rest, value=1.0 if placing.fill == "white" else 0.0)
    return sized[..., y : y + h, x : x + w]


def place_mask(
    mask_nhw: Tensor,
    hint_size: tuple[int, int],
    height: int,
    width: int,
    placing: Placing,
    area: Area | None = None,
    pixels_per_cell: int = HINT_PIXELS_PER_CELL,
) -> Tensor:
    """The mask (N, 1, h, w) in latent cells of the canvas or of an area of it, lying on the hint of `hint_size` (height, width).

    The mask's picture is the hint's picture, at any number of pixels: mask and hint go through the same geometry, and each cell gets the mean of
    the mask over it. Under *fit* it is 0 beside the picture, whatever the fill. Raises ControlError for a mask of another aspect.
    """
    check_aspect((mask_nhw.shape[-2], mask_nhw.shape[-1]), hint_size)
    h, w, y, x = check_area(area, height, width)
    both = spans(hint_size, (height * pixels_per_cell, width * pixels_per_cell), placing)
    lines = []
    for span, first, count, hint, mask in zip(both, (y, x), (h, w), hint_size, mask_nhw.shape[-2:], strict=True):
        pixels = torch.arange(first, first + count + 1, dtype=torch.float64) * pixels_per_cell
        of_hint = span.start + (pixels - span.offset) * (span.length / span.filled)
        lines.append(of_hint * (mask / hint))
    return average(mask_nhw.unsqueeze(1), *lines)


def check_aspect(mask_size: tuple[int, int], hint_size: tuple[int, int]) -> None:
    """Raises ControlError unless the mask has the hint's aspect, within one pixel or 1 %. Sizes are height, width."""
    (mask_height, mask_width), (height, width) = mask_size, hint_size
    for size, expected in (
        (mask_width, mask_height * width / height),
        (mask_height, mask_width * height / width),
    ):
        if abs(size - expected) <= max(1.0, ASPECT_TOLERANCE * size):
            return
    raise ControlError(
        f"mask is {mask_width}×{mask_height} pixels, but the hint is {width}×{height} and a mask of the same aspect was expected, at any size; "
        "make the mask from the hint's picture, or crop both alike."
    )
