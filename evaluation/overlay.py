"""Pictures that show where a picture obeys its hint and where not."""

from __future__ import annotations

import torch
from torch import Tensor

from .edges import grown
from .pairs import check_pictures, check_shapes

AGREED, MISSING, ADDED = (0, 158, 115), (213, 94, 0), (86, 180, 233)
"""Green, orange and blue that can be told apart by the colour-blind (Okabe & Ito, "Color Universal Design", 2008). RGB of 8 bits."""
HOT = ((213, 94, 0), (240, 228, 66))
"""Orange to yellow, of the same set."""
DIMMED = 0.35
"""How much of the picture's light stays under the colours."""


def lines_overlay(found: Tensor, wanted: Tensor, picture: Tensor, tolerance: float) -> Tensor:
    """Over the dimmed picture: wanted lines that are there in green, those that are missing in orange, lines that nobody asked for in blue.

    found, wanted: (B, H, W) bool; lines within `tolerance` pixels of each other agree. picture: (B, H, W, 3) float 0..1. Returns (B, H, W, 3)
    float32 in 0..1. Raises EvaluationError for other shapes.
    """
    check_shapes("overlay", found, wanted, None)
    _check_picture(picture, wanted)
    near_found, near_wanted = grown(found, tolerance), grown(wanted, tolerance)
    shown = picture.float().clamp(0, 1) * DIMMED
    for where, colour in (
        (found & ~near_wanted, ADDED),
        (wanted & ~near_found, MISSING),
        (wanted & near_found, AGREED),
    ):
        shown = torch.where(where.unsqueeze(-1), _colour(colour, shown), shown)
    return shown


def heat_overlay(difference: Tensor, picture: Tensor) -> Tensor:
    """Over the dimmed picture: orange where the difference is small, yellow where it is 1, nothing where it is 0.

    difference: (B, H, W) float, clipped to 0..1; NaN, where nothing could be compared, is 0. Otherwise as `lines_overlay`.
    """
    check_shapes("overlay", difference, difference, None)
    _check_picture(picture, difference)
    heat = difference.float().nan_to_num(nan=0.0).clamp(0, 1).unsqueeze(-1)
    shown = picture.float().clamp(0, 1) * DIMMED
    low, high = (_colour(colour, shown) for colour in HOT)
    return shown + heat * (low + heat * (high - low) - shown)


def _colour(colour: tuple[int, int, int], like: Tensor) -> Tensor:
    return torch.tensor(colour, dtype=like.dtype, device=like.device) / 255


def _check_picture(picture: Tensor, values: Tensor) -> None:
    check_shapes("overlay", picture, values.unsqueeze(-1).expand(-1, -1, -1, 3), 3)
    check_pictures("overlay", picture, picture)
