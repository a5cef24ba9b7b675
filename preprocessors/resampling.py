"""OpenCV's resizing with tensors, for pictures that live on an accelerator: the same weights, border and rounding, the whole batch at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .sizing import Size

STEPS = 2048
"""OpenCV's weights for 8-bit pictures are whole multiples of 1 / 2048."""
CUBIC_SHARPNESS = -0.75
NEGLIGIBLE = 1e-3
"""Area averaging leaves out what covers less of a pixel."""

Taps = tuple[np.ndarray, np.ndarray]
"""Which input pixels each output pixel reads and their weights, both (taps, outputs): int64, and float32 that sum to 1 for each output."""


def area(picture_bhwc: Tensor, size: Size, *, eight_bit: bool = False) -> Tensor:
    """INTER_AREA. (B, H, W, C) float32 -> (B, *size, C) float32; whole numbers stay so where it is `eight_bit`.

    Where a side grows OpenCV has no areas to average and interpolates, keeping the pixels' corners in place.
    """
    before = Size(*picture_bhwc.shape[1:3])
    if size == before:
        return picture_bhwc
    if size.height > before.height or size.width > before.width:
        return _separable(picture_bhwc, size, _corner_linear, _linear_8_bit if eight_bit else None)
    if not all(_scale(*sides).is_integer() for sides in zip(before, size, strict=True)):
        averaged = _separable(picture_bhwc, size, _area)
        return averaged.round_() if eight_bit else averaged
    # Of whole blocks, OpenCV averages the sum, which is another rounding.
    blocks = (before.height // size.height) * (before.width // size.width)
    summed = _separable(picture_bhwc, size, _area_sum)
    if eight_bit and before == (2 * size.height, 2 * size.width):
        return summed.add_(2).mul_(0.25).floor_()
    averaged = summed.mul_(float(np.float32(1) / np.float32(blocks)))
    return averaged.round_() if eight_bit else averaged


def cubic(picture_bhwc: Tensor, size: Size, *, eight_bit: bool = False) -> Tensor:
    """INTER_CUBIC, as `area`. Numbers that are not `eight_bit` may leave the range of the picture's.

    OpenCV has two ways for 8 bits: Intel's library rounds once, as it is done here; without it, it computes in steps of 1 / 2048, and one pixel in
    twenty comes out 1 higher or lower.
    """
    if tuple(picture_bhwc.shape[1:3]) == size:
        return picture_bhwc
    sized = _separable(picture_bhwc, size, _cubic)
    return sized.round_().clamp_(0, 255) if eight_bit else sized


def linear(picture_bhwc: Tensor, size: Size) -> Tensor:
    """INTER_LINEAR of numbers that are not 8-bit, as `area`."""
    return _separable(picture_bhwc, size, _linear)


def lanczos_8_bit(picture_bhwc: Tensor, size: Size) -> Tensor:
    """INTER_LANCZOS4 of whole numbers 0..255, as `area`."""
    return _separable(picture_bhwc, size, _lanczos, _lanczos_8_bit)


def nearest(picture_bhwc: Tensor, size: Size) -> Tensor:
    """INTER_NEAREST, as `area`."""
    rows, columns = (
        torch.from_numpy(np.minimum(np.arange(after) * _scale(before, after), before - 1).astype(np.int64))
        for before, after in zip(picture_bhwc.shape[1:3], size, strict=True)
    )
    return picture_bhwc.index_select(1, rows.to(picture_bhwc.device)).index_select(2, columns.to(picture_bhwc.device))


def resize_8_bit(picture_bhwc: Tensor, size: Size) -> Tensor:
    """`sizing.resize` of whole numbers 0..255."""
    shrinking = min(size) <= min(picture_bhwc.shape[1:3])
    return (area if shrinking else cubic)(picture_bhwc, size, eight_bit=True)


def resize_float(picture_bhwc: Tensor, size: Size) -> Tensor:
    """`sizing.resize` of numbers."""
    shrinking = min(size) <= min(picture_bhwc.shape[1:3])
    return (area if shrinking else cubic)(picture_bhwc, size)


def _separable(
    picture: Tensor,
    size: Size,
    taps: Callable[[int, int], Taps],
    eight_bit: Callable[[Tensor, Taps], Tensor] | None = None,
) -> Tensor:
    """Each output pixel as the weighted sum of input pixels, along the rows and then along the columns, in OpenCV's order."""
    if tuple(picture.shape[1:3]) == size:
        return picture
    columns, rows = taps(picture.shape[2], size.width), taps(picture.shape[1], size.height)
    if eight_bit is None:
        return _weighted(_weighted(picture, 2, columns), 1, rows)
    return eight_bit(_weighted(picture, 2, _whole(columns)), _whole(rows)).clamp_(0, 255)


def _weighted(picture: Tensor, dimension: int, taps: Taps) -> Tensor:
    """The sums along one dimension of (B, H, W, C), one tap after the other, as floats are added in OpenCV."""
    shape = [1, 1, 1, 1]
    shape[dimension] = -1
    sums: Tensor | None = None
    for indices, weights in zip(*taps, strict=True):
        read = picture.index_select(dimension, torch.from_numpy(indices).to(picture.device))
        read.mul_(torch.from_numpy(weights).to(picture).view(shape))
        sums = read if sums is None else sums.add_(read)
    assert sums is not None  # there are taps
    return sums


def _whole(taps: Taps) -> Taps:
    return taps[0], np.rint(taps[1] * np.float32(STEPS))


def _lanczos_8_bit(sums: Tensor, rows: Taps) -> Tensor:
    # Products are too large for whole numbers in float32.
    total = _weighted(sums.to(torch.int32), 1, rows)
    return (total.add_(STEPS**2 // 2) >> 22).to(sums.dtype)


def _linear_8_bit(sums: Tensor, rows: Taps) -> Tensor:
    whole = sums.to(torch.int32) >> 4
    parts = [_weighted(whole, 1, (rows[0][tap : tap + 1], rows[1][tap : tap + 1])) >> 16 for tap in range(len(rows[0]))]
    return ((parts[0] + parts[1] + 2) >> 2).to(sums.dtype)


@lru_cache(64)
def _area(before: int, after: int) -> Taps:
    scale = _scale(before, after)
    start = np.arange(after) * scale
    end = start + scale
    width = np.minimum(scale, before - start)
    last = np.minimum(np.floor(end), before - 1)
    first = np.minimum(np.ceil(start), last)
    source = first - 1 + np.arange(int((last - first).max()) + 2)[:, None]
    left = np.where(first - start > NEGLIGIBLE, first - start, 0)
    right = np.where(end - last > NEGLIGIBLE, np.minimum(np.minimum(end - last, 1), width), 0)
    covered = np.where(source < first, left, np.where(source < last, 1, np.where(source == last, right, 0)))
    return _inside(source, before), (covered / width).astype(np.float32)


@lru_cache(64)
def _area_sum(before: int, after: int) -> Taps:
    factor = before // after
    source = np.arange(after) * factor + np.arange(factor)[:, None]
    return source, np.ones(source.shape, np.float32)


@lru_cache(64)
def _cubic(before: int, after: int) -> Taps:
    source, x = _places(before, after)
    a, one = np.float32(CUBIC_SHARPNESS), np.float32(1)
    outer = ((a * (x + one) - 5 * a) * (x + one) + 8 * a) * (x + one) - 4 * a
    inner = [((a + 2) * near - (a + 3)) * near * near + one for near in (x, one - x)]
    weights = np.stack([outer, *inner, one - outer - inner[0] - inner[1]])
    return _inside(source - 1 + np.arange(4)[:, None], before), weights


@lru_cache(64)
def _linear(before: int, after: int) -> Taps:
    source, x = _places(before, after)
    x = np.where((source < 0) | (source >= before - 1), np.float32(0), x)
    first = _inside(source, before)
    return np.stack([first, _inside(first + 1, before)]), np.stack([1 - x, x])


@lru_cache(64)
def _corner_linear(before: int, after: int) -> Taps:
    source = np.floor(np.arange(after) * _scale(before, after))
    x = ((np.arange(after) + 1) - (source + 1) * (after / before)).astype(np.float32)
    x = np.where((x <= 0) | (source >= before - 1), np.float32(0), x - np.floor(x))
    first = _inside(source, before)
    return np.stack([first, _inside(first + 1, before)]), np.stack([1 - x, x])


@lru_cache(64)
def _lanczos(before: int, after: int) -> Taps:
    # With places in float32, other than the kinds that Intel's library does; it shows in the rounded weights.
    place = ((np.arange(after) + 0.5) * _scale(before, after) - 0.5).astype(np.float32)
    source = np.floor(place)
    distance = (place - source).astype(np.float64) + 3 - np.arange(8)[:, None]
    weights = np.sinc(distance) * np.sinc(distance / 4)
    return _inside(source - 3 + np.arange(8)[:, None], before), (weights / weights.sum(0)).astype(np.float32)


def _scale(before: int, after: int) -> float:
    """Input pixels for each output pixel. OpenCV has the inverse first, which shows in the last bit and so, rarely, in which pixel is the nearest."""
    return 1 / (after / before)


def _places(before: int, after: int) -> tuple[np.ndarray, np.ndarray]:
    """The input pixel left of each output pixel's centre, and how far from it the centre is, 0..1, float32."""
    place = (np.arange(after) + 0.5) * _scale(before, after) - 0.5
    source = np.floor(place)
    return source, (place - source).astype(np.float32)


def _inside(source: np.ndarray, before: int) -> np.ndarray:
    """Whole places, the border repeated."""
    inside: np.ndarray = source.clip(0, before - 1).astype(np.int64)
    return inside
