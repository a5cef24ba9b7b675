"""Resizing and smoothing as matrices: one product for each direction does several steps at once, for all channels, frames and devices."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .sizing import Size

Matrix = np.ndarray
"""(values after, values before) float64."""


@lru_cache(maxsize=64)
def area(before: int, after: int) -> Matrix:
    """Every new value is the mean of what it covers: OpenCV's INTER_AREA where after <= before."""
    edges = np.arange(after + 1)[:, None] * (before / after)
    old = np.arange(before)
    covered: Matrix = np.clip(np.minimum(edges[1:], old + 1) - np.maximum(edges[:-1], old), 0, None)
    return covered * (after / before)


@lru_cache(maxsize=64)
def lanczos(before: int, after: int) -> Matrix:
    """Lanczos' window of eight values, their sum at 1, border values repeated: OpenCV's INTER_LANCZOS4."""
    centres = (np.arange(after) + 0.5) * (before / after) - 0.5
    taps = np.floor(centres).astype(int)[:, None] + np.arange(-3, 5)
    distances = centres[:, None] - taps
    weights = np.sinc(distances) * np.sinc(distances / 4)
    weights /= weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((after, before))
    np.add.at(matrix, (np.arange(after)[:, None], taps.clip(0, before - 1)), weights)
    return matrix


def resizing(before: Size, after: Size) -> tuple[Matrix, Matrix]:
    """Rows' and columns' matrices of the field's resizing of poses' pictures and maps: area averaging if the sides shrink on the whole, else
    Lanczos.
    """
    shrinks = sum(after) < sum(before)
    rows, columns = (
        area(old, new) if shrinks and new <= old else lanczos(old, new) for old, new in zip(before, after, strict=True)
    )
    return rows, columns


def smoothed(matrix: Matrix, sigma: float, reach: float = 4.0) -> Matrix:
    """The matrix followed by a Gaussian of its results, `reach` sigma to each side, borders mirrored, as scipy's gaussian_filter."""
    from scipy.ndimage import gaussian_filter1d  # here, because importing the pack must stay fast

    blurred: Matrix = gaussian_filter1d(matrix, sigma, axis=0, mode="reflect", truncate=reach)
    return blurred


def resampled(maps_bchw: Tensor, rows: Matrix, columns: Matrix) -> Tensor:
    """(B, C, H, W) -> (B, C, H', W') float32 where the maps are."""
    down, across = (torch.from_numpy(one.astype(np.float32)).to(maps_bchw.device) for one in (rows, columns))
    return down @ maps_bchw.float() @ across.T
