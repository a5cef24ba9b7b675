"""A recipe for one 8-bit picture, applied to every frame of a batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .pixels import check_picture, to_uint8
from .sizing import Size, resize, size_at


def each_frame(image_bhwc: Tensor, resolution: int, recipe: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """`recipe` of each frame, resized so that its shorter side is `resolution` (0: as it is), as (B, H', W', 3) float32 on the CPU.

    The recipe gets (H', W', 3) uint8 RGB, contiguous, and returns (H', W') or (H', W', 3): uint8 for 0..255, bool for black and white, or float,
    which is taken as it is. Raises PreprocessorError for anything but finite RGB pictures.
    """
    check_picture(image_bhwc, "image")
    size = size_at(Size(image_bhwc.shape[1], image_bhwc.shape[2]), resolution)
    hints = torch.empty((image_bhwc.shape[0], *size, 3))
    for frame, hint in zip(image_bhwc, hints, strict=True):
        found = recipe(np.ascontiguousarray(resize(to_uint8(frame), size)))
        values = torch.from_numpy(np.ascontiguousarray(found))
        if values.dtype == torch.uint8:
            values = values.float() / 255.0
        hint.copy_(values if values.ndim == 3 else values.unsqueeze(-1))
    return hints
