"""A batch of any length through a preprocessor, some frames at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def in_chunks(
    function: Callable[[Tensor], Tensor],
    image_bhwc: Tensor,
    frames: int,
    before_chunk: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """`function` of the whole batch, computed `frames` frames at a time into one preallocated result.

    `before_chunk(done)` is called with the number of finished frames before each chunk and once at the end; what it
    raises (the artist's interruption) ends the run. Memory beyond input and output stays that of one chunk.
    """
    count = image_bhwc.shape[0]
    if count <= frames:
        before_chunk(0)
        whole = function(image_bhwc)
        before_chunk(count)
        return whole
    result: Tensor | None = None
    for start in range(0, count, frames):
        before_chunk(start)
        part = function(image_bhwc[start : start + frames])
        if result is None:
            result = torch.empty((count, *part.shape[1:]), dtype=part.dtype, device=part.device)
        result[start : start + frames] = part
    before_chunk(count)
    assert result is not None  # count > frames >= 1
    return result
