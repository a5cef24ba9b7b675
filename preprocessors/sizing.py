"""How large the picture is when a preprocessor looks at it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .errors import PreprocessorError


class Size(NamedTuple):
    height: int
    width: int


def size_at(size: Size, resolution: int) -> Size:
    """The size whose shorter side is `resolution` pixels, with the picture's own aspect; 0 keeps the picture's size.

    k = R / min(H, W); H' = round(H k), W' = round(W k), halves to even, as the field's preprocessors do it.
    Raises PreprocessorError for a negative resolution.
    """
    if resolution < 0:
        raise PreprocessorError(
            f"resolution: found {resolution}, but 0 (the picture's own size) or a number of pixels for the shorter "
            "side was expected; set it to 0 or more."
        )
    if resolution == 0:
        return size
    scale = resolution / min(size)
    return Size(max(1, round(size.height * scale)), max(1, round(size.width * scale)))


def resized(image_bhwc: Tensor, resolution: int) -> Tensor:
    """Every frame of a float batch with its shorter side at `resolution` (0: as it is), by `resize`, without 8-bit steps."""
    return resized_to(image_bhwc, size_at(Size(image_bhwc.shape[1], image_bhwc.shape[2]), resolution))


def resized_to(image_bhwc: Tensor, size: Size) -> Tensor:
    """Every frame of a float batch at this size, by `resize`, without 8-bit steps."""
    if size == tuple(image_bhwc.shape[1:3]):
        return image_bhwc
    if not on_cpu(image_bhwc):
        from .resampling import resize_float  # here, because it imports this

        return resize_float(image_bhwc, size)
    return torch.stack([torch.from_numpy(resize(frame.contiguous().numpy(), size)) for frame in image_bhwc])


def on_cpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def resize(picture: np.ndarray, size: Size) -> np.ndarray:
    """One picture (H, W, C), uint8 or float, resized: area averaging to shrink, cubic to enlarge."""
    import cv2  # here, because importing the pack must stay fast

    if picture.shape[:2] == tuple(size):
        return picture
    # The rule is a factor <= 1 of the shorter side, which is the comparison of the shorter sides themselves.
    shrinking = min(size) <= min(picture.shape[:2])
    resized: np.ndarray = cv2.resize(
        picture, (size.width, size.height), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC
    )
    return resized
