"""Depths of any network as the depth ControlNets know them: near is white, far is black, each frame from 0 to 1."""

from __future__ import annotations

import torch
from torch import Tensor

NEAREST, FARTHEST = 0.1, 250.0
"""Metres between which metric depths are told apart, as Depth Pro's publisher draws them (apple/ml-depth-pro)."""
FLAT = 1e-6
"""A frame whose depths differ by less than this part of the largest is flat: the rest is rounding."""


def spread(nearness_bhw: Tensor) -> Tensor:
    """(B, H, W) -> each frame alone stretched to 0..1; a flat one is black."""
    least, most = torch.aminmax(nearness_bhw.flatten(1), dim=1)
    return between(nearness_bhw, least, most)


def between(values_bhw: Tensor, black: Tensor, white: Tensor) -> Tensor:
    """(B, H, W) -> 0 at the frame's `black` (B), 1 at its `white` (B), clipped; 0 everywhere where the two are the same."""
    black, white = black.reshape(-1, 1, 1), white.reshape(-1, 1, 1)
    span = white - black
    flat = span.abs() <= FLAT * torch.maximum(black.abs(), white.abs())
    stretched = (values_bhw - black) / torch.where(flat, torch.ones_like(span), span)
    return torch.where(flat, torch.zeros_like(values_bhw), stretched.clamp(0, 1))


def inverse(metres_bhw: Tensor) -> Tensor:
    """Metres -> 1 / metres, which is what networks of relative depth give up to scale and shift."""
    return 1.0 / metres_bhw.clamp(NEAREST, FARTHEST)


def quantiles(values_bhw: Tensor, *fractions: float) -> list[Tensor]:
    """By fraction, that quantile of each frame (B), between the two nearest values; torch.quantile refuses large pictures."""
    ordered = values_bhw.flatten(1).sort(dim=1).values
    found = []
    for fraction in fractions:
        place = fraction * (ordered.shape[1] - 1)
        below, above = ordered[:, int(place)], ordered[:, min(int(place) + 1, ordered.shape[1] - 1)]
        found.append(torch.lerp(below, above, place - int(place)))
    return found


def as_hint(values_bhw: Tensor) -> Tensor:
    """(B, H, W) -> (B, H, W, 3)."""
    return values_bhw.unsqueeze(-1).repeat(1, 1, 1, 3)
