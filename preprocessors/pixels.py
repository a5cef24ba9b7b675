"""Between the host's pictures (float BHWC, 0..1) and the 8-bit pictures that OpenCV's recipes are written for."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .errors import PreprocessorError

LARGEST = 1e6
_CHANNEL_ADVICE = {
    1: 'turn a mask into a picture with the node "Convert Mask to Image" first',
    4: 'composite it on a ground, or drop its alpha with the node "Split Image with Alpha", first',
}


def check_picture(image_bhwc: Tensor, what: str) -> None:
    """Refuse anything but a float batch of RGB pictures with at least one pixel and finite values.

    image_bhwc: (B, H, W, 3). `what` names the input in the message. Raises PreprocessorError.
    """
    shape = tuple(image_bhwc.shape)
    if image_bhwc.ndim != 4 or not image_bhwc.is_floating_point():
        raise PreprocessorError(
            f"{what}: found a {image_bhwc.dtype} tensor of shape {shape}, but a float batch of pictures "
            "(batch, height, width, 3) was expected; connect an IMAGE output."
        )
    channels = shape[3]
    if channels != 3:
        advice = _CHANNEL_ADVICE.get(channels, "connect an ordinary RGB picture")
        with_alpha = " (RGB with alpha)" if channels == 4 else ""
        raise PreprocessorError(
            f"{what}: found a picture with {channels} channel{'s' if channels != 1 else ''}{with_alpha}, "
            f"but 3 (RGB) were expected; {advice}."
        )
    if 0 in shape:
        raise PreprocessorError(
            f"{what}: found an empty batch of shape {shape}, but at least one picture of at least one pixel was "
            "expected; check the node that is connected there."
        )
    # A sum is finite only if all of its numbers are, and is quickly made. Per frame, so that a thousand need no second copy of themselves.
    sums = torch.stack([frame.sum(dtype=torch.float32) for frame in image_bhwc])
    if not (bool(torch.isfinite(sums).all()) or all(bool(torch.isfinite(frame).all()) for frame in image_bhwc)):
        raise PreprocessorError(
            f"{what}: found pixels that are NaN or infinite, but numbers from 0 to 1 were expected; "
            "look for the node that made them (often a VAE in fp16: decode in fp32)."
        )


def as_rgb(image_bhwc: Tensor) -> Tensor:
    """Gray pictures in three channels, and those with alpha on a white ground; all else as it is, for `check_picture` to judge."""
    if image_bhwc.ndim != 4 or not image_bhwc.is_floating_point():
        return image_bhwc
    if image_bhwc.shape[3] == 1:
        return image_bhwc.expand(-1, -1, -1, 3)
    if image_bhwc.shape[3] == 4:
        alpha = image_bhwc[..., 3:]
        return image_bhwc[..., :3] * alpha + (1.0 - alpha)
    return image_bhwc


def to_uint8(picture_hwc: Tensor) -> np.ndarray:
    """A picture as OpenCV takes it: (H, W, 3) float 0..1 -> uint8 0..255, clipped and rounded to the nearest.

    Rounding brings an 8-bit picture back exactly; truncating, as the common packs do, darkens some pixels by 1.
    """
    import cv2  # here, because importing the pack must stay fast

    values = picture_hwc.detach().to(device="cpu", dtype=torch.float32).contiguous().numpy()
    # OpenCV clips to 8 bits by itself, in one pass, but through whole numbers of 32.
    if cv2.norm(values, cv2.NORM_INF) > LARGEST:
        values = values.clip(0, 1)
    array: np.ndarray = cv2.addWeighted(values, 255.0, values, 0.0, 0.0, dtype=cv2.CV_8U)
    return array
