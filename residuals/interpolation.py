"""Rows of numbers from one to another, by the ways of Advanced-ControlNet's interpolating nodes."""

from __future__ import annotations

import math
from collections.abc import Callable

WAYS: dict[str, Callable[[float], float]] = {
    "linear": lambda share: share,
    "ease-in": lambda share: share * share,
    "ease-out": lambda share: 1 - (1 - share) ** 2,
    "ease-in-out": lambda share: (1 - math.cos(math.pi * share)) / 2,
}


def between(first: float, last: float, count: int, way: str = "linear") -> tuple[float, ...]:
    """`count` numbers, evenly spaced in time; a single one is the first."""
    shares = [index / (count - 1) if count > 1 else 0.0 for index in range(count)]
    return tuple(first + (last - first) * WAYS[way](share) for share in shares)
