"""Distances that networks of geometry measured, as the depth ControlNets know them: near is white."""

from __future__ import annotations

import torch
from torch import Tensor

from .nearness import as_hint, between, quantiles
from .zoe_depth import FAR, NEAR

INVERSE, EVEN = "1 / distance", "evenly"
GRADINGS = (INVERSE, EVEN)
OUTLIERS = 0.001
"""Part of a frame at either end of 1 / distance that is cut off, as the host draws MoGe's."""


def geometry_depth(distances_bhw: Tensor, seen_bhw: Tensor | None = None, grading: str = INVERSE) -> Tensor:
    """(B, H, W) distances in any unit, and where they were measured (B, H, W) bool -> (B, H, W, 3) float32 in 0..1, each frame alone.

    What is not seen, not positive or infinite, as sky, is black. "1 / distance" is MiDaS's grading, "evenly" Zoe's.
    """
    distances = distances_bhw.float()
    seen = distances.isfinite() & (distances > 0)
    if seen_bhw is not None:
        seen = seen & seen_bhw
    return as_hint(torch.stack([graded(frame, here, grading) for frame, here in zip(distances, seen, strict=True)]))


def graded(distances_hw: Tensor, seen_hw: Tensor, grading: str) -> Tensor:
    if not bool(seen_hw.any()):
        return torch.zeros_like(distances_hw)
    # What is not seen has numbers that must not reach the others.
    distances = torch.where(seen_hw, distances_hw, 1)
    if grading == EVEN:
        white, black = quantiles(distances[seen_hw][None], NEAR, FAR)
    else:
        distances = 1 / distances
        black, white = quantiles(distances[seen_hw][None], OUTLIERS, 1 - OUTLIERS)
    return torch.where(seen_hw, between(distances[None], black, white)[0], 0)
