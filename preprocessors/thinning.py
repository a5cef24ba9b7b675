"""Lines of one pixel out of thicker ones."""

from __future__ import annotations

import numpy as np

from .strokes import DIRECTIONS

ROUNDS = 32
"""Each takes a pixel from both sides of a line."""
# What a pixel's neighbours must be for it to go: 1 white, -1 black, 0 either. The first two of each are turned by 90° three times.
Pattern = tuple[tuple[int, int, int], ...]
THIN: tuple[Pattern, ...] = (((-1, -1, -1), (0, 1, 0), (1, 1, 1)), ((0, -1, -1), (1, 1, -1), (0, 1, 0)))
"""Golay's L: the sides of a line and its corners."""
PRUNE: tuple[Pattern, ...] = (((-1, -1, -1), (-1, 1, -1), (0, 0, -1)), ((-1, -1, -1), (-1, 1, -1), (-1, 0, 0)))
"""Ends of lines."""


def turned(patterns: tuple[Pattern, ...]) -> list[np.ndarray]:
    return [np.rot90(np.array(pattern, np.int32), turns).copy() for turns in range(4) for pattern in patterns]


def without(lines: np.ndarray, patterns: tuple[Pattern, ...]) -> np.ndarray:
    """The lines after each of the turned patterns, one after the other, has taken the pixels that it fits."""
    import cv2  # here, because importing the pack must stay fast

    for pattern in turned(patterns):
        lines = np.where(cv2.morphologyEx(lines, cv2.MORPH_HITMISS, pattern) > 0, 0, lines).astype(np.uint8)
    return lines


def thinned(lines: np.ndarray, pruned: bool) -> np.ndarray:
    """White lines (H, W) uint8 of 0 and 255 as lines of one pixel, and where `pruned` their ends cut once."""
    for _ in range(ROUNDS):
        before, lines = lines, without(lines, THIN)
        if np.array_equal(before, lines):
            break
    return without(lines, PRUNE) if pruned else lines


def ridges(values: np.ndarray) -> np.ndarray:
    """Of (H, W) uint8 or float32 the pixels that are the largest of three in any of the four directions; the others 0."""
    import cv2  # here, because importing the pack must stay fast

    highest = np.zeros(values.shape, bool)
    for direction in DIRECTIONS:
        highest |= cv2.dilate(values, np.array(direction, np.uint8)) == values
    return np.where(highest, values, 0).astype(values.dtype)
