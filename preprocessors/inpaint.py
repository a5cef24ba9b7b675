"""Inpaint hints: the picture with a value that no picture has where it is to be painted anew."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .errors import PreprocessorError
from .pixels import as_rgb, check_picture

FILLS = {"-1": -1.0, "black": 0.0}
"""What masked pixels become: −1 for ControlNet 1.1's inpaint model and EcomXL's, black for xinsir's Union and NoobAI's."""
MASKED = 0.5
"""Where the mask is above it."""


def inpaint(image_bhwc: Tensor, mask: Tensor, *, masked: str = "-1") -> Tensor:
    """The picture, with all channels at `FILLS[masked]` where the mask, resized bilinearly to the picture, is above a half.

    image (B, H, W, 3) float 0..1, mask (B or 1, h, w) float -> (B, H, W, 3) float32 in −1..1. Raises PreprocessorError.
    """
    image = as_rgb(image_bhwc)
    check_picture(image, "image")
    if mask.ndim == 2:
        mask = mask.unsqueeze(0)
    if mask.ndim != 3 or mask.shape[0] not in (1, image.shape[0]) or 0 in mask.shape:
        raise PreprocessorError(
            f"mask: found a tensor of shape {tuple(mask.shape)}, but one mask for all or one for each of the {image.shape[0]} pictures was expected; "
            "connect a MASK output of as many masks."
        )
    if masked not in FILLS:
        raise PreprocessorError(
            f'masked: found "{masked}", but one of {", ".join(FILLS)} was expected; choose one of them.'
        )
    sized = interpolate(mask.to(image.device, torch.float32).unsqueeze(1), tuple(image.shape[1:3]), mode="bilinear")
    return torch.where(sized.movedim(1, -1) > MASKED, FILLS[masked], image.to(torch.float32))
