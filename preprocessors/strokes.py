"""Soft edges made safe, and made scribbles."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from .gaussians import blurred, blurred_8_bit
from .preprocessor import Parameter
from .sizing import on_cpu

SAFE_STEPS = 2
SAFE = Parameter(
    "safe",
    default=True,
    tooltip="Three levels of grey in place of all, so that less of the picture shows through; off: softer, more detail.",
)
# Three pixels in a row, each way a line can go through a pixel.
DIRECTIONS = (
    ((0, 0, 0), (1, 1, 1), (0, 0, 0)),
    ((0, 1, 0), (0, 1, 0), (0, 1, 0)),
    ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ((0, 0, 1), (0, 1, 0), (1, 0, 0)),
)
BLUR = 3.0
"""Sigma in pixels."""
RIDGE, STROKE = 127, 4
"""In 8-bit steps: how bright a ridge must be to be kept, and from where on its blur is the stroke; "fake scribble" of the field's packs."""


def made_safe(edges: Tensor, steps: int = SAFE_STEPS) -> Tensor:
    """Edges of 0..1 in `steps` + 1 levels from 0 to 1, so that no grey levels give the picture away; 0 steps leave them."""
    return (edges * (steps + 1)).trunc().div(steps).clamp(0, 1) if steps else edges


def as_strokes(edges_bhwc: Tensor) -> Tensor:
    """Soft edges (B, H, W, 1), 0..1, as white strokes on black: their ridges, thickened. (B, H, W, 3) float32 of 0 and 1."""
    import cv2  # here, because importing the pack must stay fast

    if not on_cpu(edges_bhwc):
        return strokes_on_device(edges_bhwc)
    strokes = torch.empty(*edges_bhwc.shape[:3], 3)
    for edges, stroke in zip(edges_bhwc[..., 0], strokes, strict=True):
        values = cv2.GaussianBlur((edges * 255).clamp(0, 255).trunc().numpy(), (0, 0), BLUR)
        on_a_ridge = np.zeros(values.shape, bool)
        for direction in DIRECTIONS:
            on_a_ridge |= cv2.dilate(values, np.array(direction, np.uint8)) == values
        ridges = np.where(on_a_ridge & (values > RIDGE), 255, 0).astype(np.uint8)
        stroke.copy_(torch.from_numpy(cv2.GaussianBlur(ridges, (0, 0), BLUR) > STROKE).unsqueeze(-1))
    return strokes


def strokes_on_device(edges_bhwc: Tensor) -> Tensor:
    """`as_strokes` of the whole batch where it is."""
    values = blurred((edges_bhwc.to(torch.float32) * 255).clamp_(0, 255).trunc_(), BLUR)
    height, width = values.shape[1:3]
    around = pad(values, (0, 0, 1, 1, 1, 1), value=-1.0)
    on_a_ridge = torch.zeros_like(values, dtype=torch.bool)
    for direction in DIRECTIONS:
        highest = torch.ones_like(on_a_ridge)
        for rows, columns in zip(*np.nonzero(np.array(direction)), strict=True):
            highest &= values >= around[:, rows : rows + height, columns : columns + width]
        on_a_ridge |= highest
    ridges = (on_a_ridge & (values > RIDGE)).to(torch.float32).mul_(255)
    return (blurred_8_bit(ridges, BLUR) > STROKE).to(torch.float32).repeat(1, 1, 1, 3)
