"""A recipe applied to every frame of a batch: with OpenCV frame by frame on the CPU, with tensors all at once on an accelerator."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from .pixels import check_picture, to_uint8
from .resampling import resize_8_bit
from .sizing import Size, on_cpu, resize, size_at

Recipe = Callable[[np.ndarray], np.ndarray]
Batched = Callable[[Tensor], Tensor]

VALUES_PER_PIXEL = 24
"""How many numbers for each pixel the ordinary ones of these preprocessors have in memory at once on an accelerator, in 4 bytes."""
UNIT = (np.arange(256) / np.float32(255)).astype(np.float32)
"""The float of each 8-bit value."""
BLACK_AND_WHITE = np.minimum(np.arange(256), 1).astype(np.float32)


def each_frame(image_bhwc: Tensor, resolution: int, recipe: Recipe, batched: Batched | None = None) -> Tensor:
    """`recipe` of each frame, resized so that its shorter side is `resolution` (0: as it is), as (B, H', W', 3) float32 where the image is.

    The recipe gets (H', W', 3) uint8 RGB, contiguous, and returns (H', W') or (H', W', 3): uint8 for 0..255, bool for black and white, or float,
    which is taken as it is. `batched` is the same for pictures on an accelerator, see `on_device`; without it they go through the CPU.
    Raises PreprocessorError for anything but finite RGB pictures.
    """
    if batched is not None and not on_cpu(image_bhwc):
        return on_device(image_bhwc, resolution, batched)
    check_picture(image_bhwc, "image")
    size = size_at(Size(image_bhwc.shape[1], image_bhwc.shape[2]), resolution)
    hints = torch.empty((image_bhwc.shape[0], *size, 3))

    def one(frame: Tensor, hint: np.ndarray) -> None:
        write(recipe(np.ascontiguousarray(resize(to_uint8(frame), size))), hint)

    # OpenCV and numpy let other threads run while they compute, and much of a recipe uses one core only.
    with ThreadPoolExecutor(min(len(hints), torch.get_num_threads())) as threads:
        deque(threads.map(one, image_bhwc, hints.numpy()), maxlen=0)
    return hints.to(image_bhwc.device)


def on_device(image_bhwc: Tensor, resolution: int, batched: Batched) -> Tensor:
    """`batched` of all frames as `each_frame` does it, computed where the image is.

    It gets (B, H', W', 3) float32 of whole numbers 0..255, its own copy, and returns (B, H', W') or (B, H', W', 3): uint8, bool or float as above.
    """
    check_picture(image_bhwc, "image")
    size = size_at(Size(image_bhwc.shape[1], image_bhwc.shape[2]), resolution)
    picture = (image_bhwc.to(torch.float32) * 255.0).round_().clamp_(0, 255)
    found = batched(resize_8_bit(picture, size))
    del picture
    values = found.to(torch.float32, memory_format=torch.contiguous_format)
    if found.dtype == torch.uint8:
        values = values.div_(255.0)
    return values if values.ndim == 4 else values.unsqueeze(-1).repeat(1, 1, 1, 3)


def darkest(picture_hwc: np.ndarray) -> np.ndarray:
    """The smallest channel of each pixel, (H, W): numpy's own is slow along a dimension of three."""
    smallest: np.ndarray = np.minimum(np.minimum(picture_hwc[..., 0], picture_hwc[..., 1]), picture_hwc[..., 2])
    return smallest


def write(found: np.ndarray, hint: np.ndarray) -> None:
    """What a recipe returned as (H, W, 3) float32 into `hint`."""
    import cv2  # here, because importing the pack must stay fast

    # A table is one pass over the pixels; converting, dividing and copying are three, with memory for each.
    table = {np.dtype(np.uint8): UNIT, np.dtype(np.bool_): BLACK_AND_WHITE}.get(found.dtype)
    if found.ndim == 3 and table is not None:
        cv2.LUT(found.view(np.uint8), table, dst=hint)
    elif found.ndim == 3:
        np.copyto(hint, found)
    else:
        grey = np.asarray(found, np.float32) if table is None else cv2.LUT(found.view(np.uint8), table)
        cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB, dst=hint)
