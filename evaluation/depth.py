"""Depth: how far a picture's depth is from the one that it was asked to have."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import EvaluationError
from .pairs import check_pictures, check_shapes

CLOSE = 1.25
"""By which factor depths may differ to count as close (Eigen et al. 2014, section 4.2)."""
FARTHEST = 20.0
"""Of hints: nothing counts as farther than this many times the distance of white, since the nearness of what is far is nearly 0, whatever its
depth."""


@dataclass(frozen=True)
class DepthScore:
    """Float32 (N); NaN where no pixel counts."""

    scale_invariant: Tensor
    """Root mean square of the logarithms' differences from their mean: 0 is perfect, 0.1 about 10 %."""
    close: Tensor
    """The share of pixels, 0..1, whose depths differ by less than a factor of 1.25."""


def depth_score(found: Tensor, wanted: Tensor) -> DepthScore:
    """Compares depths (N, H, W) in any unit, the same for both; pixels where either is not above 0 and finite do not count.

    Eigen, Puhrsch & Fergus, "Depth Map Prediction from a Single Image", 2014: equation 1, its root (what is 2 to 3 times as deep everywhere scores
    0), and delta < 1.25 of section 4.2, to which the scale does matter. Raises EvaluationError for unequal shapes.
    """
    check_shapes("depth", found, wanted, None)
    counts = (found > 0) & (wanted > 0) & torch.isfinite(found) & torch.isfinite(wanted)
    nothing = torch.zeros((), dtype=torch.float64, device=found.device)
    difference = torch.where(counts, found.double(), 1.0).log() - torch.where(counts, wanted.double(), 1.0).log()
    pixels = counts.sum(dim=(1, 2)).double()
    mean = _mean(difference, counts)
    spread = torch.where(counts, difference - mean.reshape(-1, 1, 1), nothing).square().sum(dim=(1, 2)) / pixels
    close = (counts & (difference.abs() < torch.tensor(CLOSE).log())).sum(dim=(1, 2)) / pixels
    return DepthScore(scale_invariant=spread.sqrt().float(), close=close.float())


def nearness_score(found: Tensor, wanted: Tensor) -> DepthScore:
    """Compares hints (N, H, W), 0 far to 1 near, that know inverse depth only up to a scale and a shift.

    The found one is brought to the wanted one by `aligned`; then both are depths 1 / nearness, the farthest 20 times as far as white.
    Raises EvaluationError for unequal shapes, and for numbers that are not finite.
    """
    check_pictures("depth", found, wanted, None)
    least = 1 / FARTHEST
    return depth_score(1 / aligned(found, wanted).clamp(min=least), 1 / wanted.double().clamp(min=least))


def aligned(found: Tensor, wanted: Tensor) -> Tensor:
    """The found inverse depths (N, H, W) with the scale and the shift that bring each picture's nearest to the wanted ones: float64.

    Least squares (Ranftl et al., "Towards Robust Monocular Depth Estimation", 2020, equations 3 and 4), with two things added: the scale is never
    below 0, or what is inside out would be as good; and it is 1 where the wanted picture is flat, or any relief would be as good as none.
    """
    found, wanted = found.double(), wanted.double()
    if found.shape != wanted.shape:
        raise EvaluationError(
            f"depth: found shapes {tuple(found.shape)} and {tuple(wanted.shape)}, but two equal ones were expected; "
            "resize one of them first."
        )
    middle, target = found.mean(dim=(1, 2), keepdim=True), wanted.mean(dim=(1, 2), keepdim=True)
    deviation, goal = found - middle, wanted - target
    power = deviation.square().sum(dim=(1, 2), keepdim=True)
    scale = (deviation * goal).sum(dim=(1, 2), keepdim=True) / power.clamp(min=torch.finfo(torch.float64).tiny)
    flat = wanted.amax(dim=(1, 2), keepdim=True) == wanted.amin(dim=(1, 2), keepdim=True)
    scale = torch.where(flat, torch.ones_like(scale), scale.clamp(min=0))
    return deviation * scale + target


def _mean(values: Tensor, counts: Tensor) -> Tensor:
    return torch.where(counts, values, torch.zeros_like(values)).sum(dim=(1, 2)) / counts.sum(dim=(1, 2))
