"""Normalisation by fixed statistics as part of the convolution before it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

STATISTICS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
"""What a file holds of one batch normalisation."""


def scale_and_shift(weights: Mapping[str, Tensor], name: str, eps: float) -> tuple[Tensor, Tensor]:
    """What the batch normalisation `name` multiplies each channel by, and adds then; float64, to be rounded once."""
    weight, bias, mean, variance, _ = (weights[f"{name}.{part}"].double() for part in STATISTICS)
    scale = weight / torch.sqrt(variance + eps)
    return scale, bias - mean * scale


def fold(weights: dict[str, Tensor], normalisation: str, convolution: str, eps: float) -> None:
    """Put the batch normalisation into the convolution whose output it alone gets: in place, its own tensors go."""
    scale, shift = scale_and_shift(weights, normalisation, eps)
    kernel, bias = f"{convolution}.weight", f"{convolution}.bias"
    weights[kernel] = weights[kernel].double() * scale.reshape(-1, 1, 1, 1)
    weights[bias] = weights[bias].double() * scale + shift if bias in weights else shift
    for part in STATISTICS:
        del weights[f"{normalisation}.{part}"]


def normalisations(module: nn.Module) -> list[tuple[str, float]]:
    """The names of a module's batch normalisations, and what each adds to the variance."""
    return [(name, part.eps) for name, part in module.named_modules() if isinstance(part, nn.BatchNorm2d)]
