"""The sizes that pictures are brought to, so that those of one size can be learned from together."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...preprocessors.sizing import Size
from .settings import STEP


def bucket_sizes(resolution: int, widest: float) -> tuple[Size, ...]:
    """Sides that are multiples of 64, at most resolution² pixels in all, the longer at most `widest` times the shorter; widest pictures last."""
    sizes = {Size(resolution, resolution)}
    for short in range(STEP, resolution, STEP):
        long = resolution**2 // short // STEP * STEP
        if long <= widest * short:
            sizes |= {Size(short, long), Size(long, short)}
    return tuple(sorted(sizes, key=lambda size: size.width / size.height))


def nearest(size: Size, sizes: Sequence[Size]) -> Size:
    """That of `sizes` whose shape is most like this one's."""
    return min(sizes, key=lambda one: abs(math.log(one.width / one.height) - math.log(size.width / size.height)))
