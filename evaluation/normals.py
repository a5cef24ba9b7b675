"""Normals: by which angle a picture's surfaces are turned from those that it was asked to have."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .pairs import check_pictures

NEAR, NEARER, NEAREST = 30.0, 22.5, 11.25
SHORTEST, LONGEST = 0.5, 1.5
"""A pixel is a normal where its vector's length, which 8 bits and resizing change, is between these: grey has 0, black and white have 1.73."""


@dataclass(frozen=True)
class NormalScore:
    """Float32 (N); NaN where no pixel is a normal in both. Degrees, 0..180, and shares of the pixels, 0..1."""

    mean: Tensor
    median: Tensor
    within_11: Tensor
    """Below 11.25 degrees."""
    within_22: Tensor
    """Below 22.5 degrees."""
    within_30: Tensor
    """Below 30 degrees."""


def normal_score(found: Tensor, wanted: Tensor) -> NormalScore:
    """Compares pictures (N, H, W, 3) of normals as (n + 1) / 2, float 0..1, in one convention, whichever it is.

    The numbers are those of Fouhey, Gupta & Hebert, "Data-Driven 3D Primitives for Single Image Understanding", 2013, section 5. Raises
    EvaluationError for anything but two finite batches of one shape.
    """
    angle = angles(found, wanted).flatten(1)
    counts = ~angle.isnan()
    pixels = counts.sum(dim=1)

    def share(limit: float) -> Tensor:
        return (angle < limit).sum(dim=1) / pixels

    return NormalScore(angle.nanmean(dim=1), _median(angle, pixels), share(NEAREST), share(NEARER), share(NEAR))


def angles(found: Tensor, wanted: Tensor) -> Tensor:
    """Degrees between the normals, 0..180, (N, H, W) float32; NaN where either pixel is no normal. Arguments and errors as for `normal_score`."""
    check_pictures("normals", found, wanted)
    a, b = found.float() * 2 - 1, wanted.float() * 2 - 1
    # The arc cosine of nearly 1 would be off by hundredths of a degree.
    across, along = torch.linalg.vector_norm(torch.linalg.cross(a, b), dim=3), (a * b).sum(dim=3)
    valid = _is_normal(a) & _is_normal(b)
    return torch.rad2deg(torch.atan2(across, along)).masked_fill(~valid, torch.nan)


def _is_normal(vectors: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(vectors, dim=3)
    return (length >= SHORTEST) & (length <= LONGEST)


def _median(angle: Tensor, pixels: Tensor) -> Tensor:
    ordered = angle.nan_to_num(nan=torch.inf).sort(dim=1).values
    lower, upper = (
        ((pixels - 1).clamp(min=0) // 2).unsqueeze(1),
        (pixels // 2).unsqueeze(1).clamp(max=angle.shape[1] - 1),
    )
    middle = (ordered.gather(1, lower) + ordered.gather(1, upper)).squeeze(1) / 2
    return middle.masked_fill(pixels == 0, torch.nan)
