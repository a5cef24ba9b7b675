"""Square parts of pictures, brought to one size for a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .resizing_matrices import resampled, resizing
from .sizing import Size

SMALLEST = 20
"""Pixels of a box's side; the networks see nothing in smaller ones."""


class Box(NamedTuple):
    """A part of a picture, in whole pixels inside of it."""

    frame: int
    x: int
    y: int
    width: int
    height: int


def box_in(size: Size, frame: int, x: float, y: float, side: float, beyond: float) -> Box | None:
    """The square with its upper left corner at x, y, moved into the picture there; None where too little of it is left.

    Its side is cut where x or y plus `beyond` lie beyond the picture, and its pixels at the picture's edges.
    """
    x, y = max(x, 0.0), max(y, 0.0)
    side = min(
        size.width - x if x + beyond > size.width else side, size.height - y if y + beyond > size.height else side
    )
    if side < SMALLEST:
        return None
    left, top, whole = int(x), int(y), int(side)
    return Box(frame, left, top, min(whole, size.width - left), min(whole, size.height - top))


def parts_in(picture_bchw: Tensor, boxes: Sequence[Box]) -> list[Tensor]:
    """The boxes' parts of the pictures, (1, C, height, width) each."""
    return [
        picture_bchw[box.frame : box.frame + 1, :, box.y : box.y + box.height, box.x : box.x + box.width]
        for box in boxes
    ]


def squares(parts: Sequence[Tensor], side: int) -> Tensor:
    """Parts of pictures, 0..1, all of them resized to (parts, 3, side, side) float32."""
    return torch.cat(
        [resampled(part, *resizing(Size(*part.shape[2:]), Size(side, side))).clamp(0, 1) for part in parts]
    )


def some_at_once(parts: Sequence[Tensor], side: int, pixels: int) -> Iterator[Tensor]:
    """`squares` of some of the parts after another, of that many pixels in all or of one part."""
    count = max(1, pixels // (side * side))
    for start in range(0, len(parts), count):
        yield squares(parts[start : start + count], side)
