"""Colour fidelity: how far the colours of a picture's blocks are from those asked for."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import EvaluationError


def block_colour_error(picture: Tensor, wanted: Tensor, grid: int = 8) -> Tensor:
    """Mean absolute difference of block means: float32 (N,), 0..1.

    picture, wanted: (N, H, W, 3) float in 0..1, of any sizes; each is averaged over grid x grid blocks, all channels count alike.
    """
    if picture.shape[0] != wanted.shape[0] or picture.shape[-1] != wanted.shape[-1]:
        raise EvaluationError(
            f"block_colour_error: found pictures of shape {tuple(picture.shape)} and {tuple(wanted.shape)}, "
            "but as many of one as of the other, with equal channels, were expected; give each picture its own hint."
        )
    a, b = (torch.nn.functional.adaptive_avg_pool2d(image.float().movedim(-1, 1), grid) for image in (picture, wanted))
    return (a - b).abs().mean(dim=(1, 2, 3))
