"""Structural similarity of pictures."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import EvaluationError
from .pairs import check_pictures

SIDE, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03


def ssim(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean structural similarity: (N, H, W, C) float 0..1 twice -> (N) float32, -1..1, 1 for pictures that are the same.

    Wang, Bovik, Sheikh & Simoncelli, "Image Quality Assessment", 2004, equations 13 to 17: a Gaussian window of 11 × 11 pixels, sigma 1.5, wholly
    inside of the picture, the range of the pixels being 1; the mean of the channels. Raises EvaluationError for pictures below 11 × 11, of two
    shapes, or that are not finite.
    """
    return ssim_map(found, wanted).mean(dim=(1, 2))


def ssim_map(found: Tensor, wanted: Tensor) -> Tensor:
    """The mean of the channels around every pixel that is 5 from the border: (N, H - 10, W - 10) float32. Otherwise as `ssim`."""
    check_pictures("ssim", found, wanted, found.shape[-1])
    if min(found.shape[1:3]) < SIDE:
        raise EvaluationError(
            f"ssim: found pictures of {found.shape[2]} × {found.shape[1]} pixels, but at least {SIDE} × {SIDE} were expected; "
            "enlarge both."
        )
    x, y = (picture.float().movedim(-1, 1).flatten(0, 1).unsqueeze(1) for picture in (found, wanted))
    mean_x, mean_y, square_x, square_y, product = (_blurred(values) for values in (x, y, x * x, y * y, x * y))
    variances = (square_x - mean_x * mean_x) + (square_y - mean_y * mean_y)
    covariance = product - mean_x * mean_y
    light = (2 * mean_x * mean_y + K1**2) / (mean_x * mean_x + mean_y * mean_y + K1**2)
    similar = light * (2 * covariance + K2**2) / (variances + K2**2)
    return similar.reshape(found.shape[0], found.shape[3], *similar.shape[2:]).mean(dim=1)


def _blurred(values: Tensor) -> Tensor:
    offset = torch.arange(SIDE, device=values.device, dtype=torch.float64) - SIDE // 2
    weights = (-(offset**2) / (2 * SIGMA**2)).exp()
    window = (weights / weights.sum()).float()
    columns = torch.nn.functional.conv2d(values, window.reshape(1, 1, -1, 1))
    return torch.nn.functional.conv2d(columns, window.reshape(1, 1, 1, -1))
