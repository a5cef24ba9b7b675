"""Whether two batches can be compared pixel by pixel."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import EvaluationError


def check_pictures(measure: str, found: Tensor, wanted: Tensor, channels: int | None = 3) -> None:
    """Refuses all but two float batches of one shape (B, H, W, channels), or (B, H, W) where `channels` is None, with finite numbers.

    Raises EvaluationError.
    """
    check_shapes(measure, found, wanted, channels)
    for values in (found, wanted):
        if not values.is_floating_point():
            raise EvaluationError(
                f"{measure}: found {values.dtype} numbers, but floats from 0 to 1 were expected; divide pictures of 8 bits by 255."
            )
        if not bool(torch.isfinite(values).all()):
            raise EvaluationError(
                f"{measure}: found pixels that are NaN or infinite, but numbers were expected; "
                "look for the node that made them (often a VAE in fp16: decode in fp32)."
            )


def check_shapes(measure: str, found: Tensor, wanted: Tensor, channels: int | None) -> None:
    layout = "(batch, height, width)" if channels is None else f"(batch, height, width, {channels})"
    right = found.ndim == (3 if channels is None else 4) and (channels is None or found.shape[3] == channels)
    if found.shape != wanted.shape or not right or found.numel() == 0:
        raise EvaluationError(
            f"{measure}: found shapes {tuple(found.shape)} and {tuple(wanted.shape)}, but two equal ones {layout} of at least one pixel were "
            "expected; bring the picture to the hint's size before it is annotated, and give each picture its own hint."
        )
