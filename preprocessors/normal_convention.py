"""Normal maps from one convention of colours to another."""

from __future__ import annotations

import torch
from torch import Tensor

from .pixels import check_picture

OPENGL, DIRECTX, BAE, MIDAS = "OpenGL", "DirectX", "NormalBAE", "MiDaS"
CONVENTIONS = {
    OPENGL: "red is right, green is up",
    DIRECTX: "red is right, green is down",
    BAE: "red is left, green is up: ControlNet 1.1",
    MIDAS: "blue is left, green is up, red is to the viewer: ControlNet 1.0",
}


def normal_convention(image_bhwc: Tensor, source: str = OPENGL, target: str = BAE) -> Tensor:
    """(B, H, W, 3) float 0..1 -> the same directions in the other colours, float32; black stays black, being no direction.

    Raises PreprocessorError for anything but finite RGB pictures.
    """
    check_picture(image_bhwc, "image")
    image = image_bhwc.float()
    found = exchanged(exchanged(image, source), target).clamp(0, 1)
    return torch.where((image == 0).all(dim=3, keepdim=True), image, found)


def exchanged(image_bhwc: Tensor, convention: str) -> Tensor:
    """Of this convention to NormalBAE's, or back."""
    red, green, blue = image_bhwc.unbind(dim=3)
    if convention == MIDAS:
        red, blue = blue, red
    if convention in (OPENGL, DIRECTX):
        red = 1 - red
    if convention == DIRECTX:
        green = 1 - green
    return torch.stack([red, green, blue], dim=3)
