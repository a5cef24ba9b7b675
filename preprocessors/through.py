"""A batch of pictures through a network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from .pixels import check_picture
from .sizing import Size, resized, size_at

MULTIPLE = 64
"""The field's preprocessors bring both sides to a multiple of 64 pixels, by repeating the right and lower edge, and cut it off again."""


def padded_size(size: Size, resolution: int) -> Size:
    """How large a picture of this size is in the network."""
    height, width = size_at(size, resolution)
    return Size(-(-height // MULTIPLE) * MULTIPLE, -(-width // MULTIPLE) * MULTIPLE)


def through(image_bhwc: Tensor, resolution: int, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """`compute` of all frames at once, their shorter side at `resolution` (0: as it is), as (B, H', W', C) float32 where the image is.

    `compute` gets (B, 3, H, W) float32 in 0..1, both sides multiples of 64, and returns (B, C, H, W) on any device in any dtype. Raises
    PreprocessorError for anything but finite RGB pictures.
    """
    check_picture(image_bhwc, "image")
    # Cubic enlarging overshoots, and no picture that a network was trained on did.
    picture = resized(image_bhwc.float(), resolution).clamp(0, 1).movedim(-1, 1)
    height, width = picture.shape[2:]
    high, wide = padded_size(Size(height, width), 0)
    found = compute(pad(picture, (0, wide - width, 0, high - height), mode="replicate"))
    return found[..., :height, :width].movedim(1, -1).to(image_bhwc.device, torch.float32)
