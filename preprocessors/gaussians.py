"""OpenCV's GaussianBlur with tensors, for pictures that live on an accelerator: the same kernels, border and rounding, the whole batch at once."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

BLOCK = 256
"""Outputs that one matrix product makes: more waste products with zeros, fewer wait for the start of each."""
SMALL = 5
"""Taps up to which OpenCV adds the neighbours in a row in another order."""
FRACTION = 256
"""OpenCV's kernels for 8-bit pictures are whole multiples of 1 / 256."""


def blurred(values_bhwc: Tensor, sigma: float) -> Tensor:
    """Numbers blurred with a Gaussian of `sigma` pixels. (B, H, W, C) float32 -> the same.

    Numbers are added in OpenCV's order, which is the same for every pixel: flat parts stay flat, and a frame does not depend on its batch.
    """
    kernel = gaussian(size_of(sigma, 4), sigma).astype(np.float32)
    rows = _in_pairs(values_bhwc, 2, kernel) if len(kernel) <= SMALL else _in_order(values_bhwc, kernel)
    return _in_pairs(rows, 1, kernel)


def blurred_8_bit(picture_bhwc: Tensor, sigma: float, size: int = 0) -> Tensor:
    """Whole numbers 0..255 blurred with a Gaussian of `sigma` pixels and `size` taps (0: as many as it needs), to the same bits as OpenCV's.

    (B, H, W, C) float32 -> the same. Matrices are multiplied whose numbers are whole and of 8 bits, and their sums stay below 2^24: that is exact in
    any order, and in the fewer bits of TF32 or bfloat16, in which torch multiplies float32 where the user allows it.
    """
    kernel = whole_kernel(size or size_of(sigma, 3), sigma)
    lower = _products(picture_bhwc.movedim(-1, 1), kernel).transpose(2, 3)
    upper = lower.div(FRACTION).floor_()
    lower.sub_(upper, alpha=FRACTION)
    rows_last = _products(upper, kernel).mul_(FRACTION)
    del upper
    rows_last.add_(_products(lower, kernel))
    del lower
    return rows_last.add_(FRACTION**2 / 2).mul_(1 / FRACTION**2).floor_().permute(0, 3, 2, 1)


def size_of(sigma: float, sigmas: int) -> int:
    """How many taps OpenCV gives a kernel: `sigmas` of them to each side are 3 for 8-bit pictures and 4 for others."""
    return round(sigma * sigmas * 2 + 1) | 1


def gaussian(size: int, sigma: float) -> np.ndarray:
    """(size,) float64 that sum to 1."""
    kernel = np.exp(-0.5 * (np.arange(size) - (size - 1) / 2) ** 2 / sigma**2)
    normal: np.ndarray = kernel / kernel.sum()
    return normal


def whole_kernel(size: int, sigma: float) -> np.ndarray:
    """(size,) whole numbers that sum to 256: each is rounded with what the ones before it lost, from the outside in, as OpenCV does."""
    outer, lost = [], 0.0
    for weight in gaussian(size, sigma)[: size // 2]:
        exact = weight * FRACTION + lost
        outer.append(round(exact))
        lost = exact - outer[-1]
    return np.array([*outer, FRACTION - 2 * sum(outer), *outer[::-1]])


@lru_cache(64)
def mirrored(length: int, radius: int) -> np.ndarray:
    """The places −radius..length + radius − 1 inside of 0..length − 1, mirrored at the border pixels as often as it takes (int64)."""
    if length == 1:
        return np.zeros(1 + 2 * radius, np.int64)
    place = np.arange(-radius, length + radius) % (2 * length - 2)
    return np.minimum(place, 2 * length - 2 - place)


@lru_cache(64)
def nearest_places(length: int, radius: int) -> np.ndarray:
    """The places −radius..length + radius − 1 inside of 0..length − 1, the border pixels repeated (int64)."""
    return np.arange(-radius, length + radius).clip(0, length - 1)


def _in_order(values: Tensor, kernel: np.ndarray) -> Tensor:
    """Rows blurred, from the left neighbour to the right."""
    width = values.shape[2]
    wide = values.index_select(2, torch.from_numpy(mirrored(width, len(kernel) // 2)).to(values.device))
    sums = wide[:, :, :width] * float(kernel[0])
    for start in range(1, len(kernel)):
        sums.add_(wide[:, :, start : start + width], alpha=float(kernel[start]))
    return sums


def _in_pairs(values: Tensor, dimension: int, kernel: np.ndarray) -> Tensor:
    """Rows or columns blurred, from the middle to the two neighbours farthest away."""
    length, radius = values.shape[dimension], len(kernel) // 2
    wide = values.index_select(dimension, torch.from_numpy(mirrored(length, radius)).to(values.device))
    sums = wide.narrow(dimension, radius, length) * float(kernel[radius])
    pair = torch.empty_like(sums)
    for away in range(1, radius + 1):
        left, right = (wide.narrow(dimension, start, length) for start in (radius - away, radius + away))
        sums.add_(torch.add(left, right, out=pair), alpha=float(kernel[radius + away]))
    return sums


def _products(picture: Tensor, kernel: np.ndarray) -> Tensor:
    """The last dimension of (B, C, H, W) blurred, as products with one band of the kernel for each block of outputs."""
    length, radius = picture.shape[-1], len(kernel) // 2
    wide = picture.index_select(-1, torch.from_numpy(mirrored(length, radius)).to(picture.device))
    count = min(BLOCK, length)
    band = np.zeros((count + 2 * radius, count), np.float32)
    for output in range(count):
        band[output : output + len(kernel), output] = kernel
    band_there = torch.from_numpy(band).to(picture)
    sums = picture.new_empty(picture.shape)
    for start in range(0, length, count):
        outputs = min(count, length - start)
        inputs = wide[..., start : start + outputs + 2 * radius]
        sums[..., start : start + outputs] = inputs @ band_there[: outputs + 2 * radius, :outputs]
    return sums
