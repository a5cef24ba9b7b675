"""Colour differences as people see them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .pairs import check_pictures

TO_XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
"""Of linear sRGB, D65 (IEC 61966-2-1)."""
DARK, DARK_SLOPE = 0.04045, 12.92
SMALL, SMALL_SLOPE = 216 / 24389, 24389 / 27
"""CIE 15: below the first, a straight line of the second in place of the cube root."""


def colour_difference(found: Tensor, wanted: Tensor) -> Tensor:
    """CIEDE2000 of every pixel of sRGB pictures (N, H, W, 3) float 0..1: (N, H, W) float32; 1 is about what can just be seen, black to white is 100.

    Raises EvaluationError for anything but two finite batches of one shape.
    """
    check_pictures("colours", found, wanted)
    return ciede2000(lab(found.float()), lab(wanted.float()))


def lab(picture: Tensor) -> Tensor:
    """sRGB (..., 3), float clipped to 0..1 -> CIE L*a*b* (..., 3) of D65: L in 0..100."""
    picture = picture.clamp(0, 1)
    linear = torch.where(picture <= DARK, picture / DARK_SLOPE, ((picture + 0.055) / 1.055) ** 2.4)
    matrix = torch.tensor(TO_XYZ, dtype=picture.dtype, device=picture.device)
    xyz = (linear.unsqueeze(-2) * matrix).sum(dim=-1) / matrix.sum(dim=1)  # 1 for white
    roots = torch.where(xyz > SMALL, xyz.clamp(min=SMALL) ** (1 / 3), (SMALL_SLOPE * xyz + 16) / 116)
    x, y, z = roots.unbind(dim=-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-1)


def ciede2000(first: Tensor, second: Tensor) -> Tensor:
    """The difference of colours in L*a*b*, (..., 3) float -> (...), as Sharma, Wu & Dalal, "The CIEDE2000 Color-Difference Formula", 2005,
    equations 2 to 22, all weights 1. At most some 120 in sRGB.
    """
    (light_1, a_1, b_1), (light_2, a_2, b_2) = first.unbind(dim=-1), second.unbind(dim=-1)
    stretch = 1.5 - 0.5 * _weight_of((torch.hypot(a_1, b_1) + torch.hypot(a_2, b_2)) / 2)
    a_1, a_2 = a_1 * stretch, a_2 * stretch
    chroma_1, chroma_2 = torch.hypot(a_1, b_1), torch.hypot(a_2, b_2)
    hue_1, hue_2 = _degrees(a_1, b_1), _degrees(a_2, b_2)

    # The paper's cases of a grey are not needed: its hue counts only times its chroma.
    turn = hue_2 - hue_1
    turn = torch.where(turn > 180, turn - 360, torch.where(turn < -180, turn + 360, turn))
    light, chroma = light_2 - light_1, chroma_2 - chroma_1
    hue = 2 * (chroma_1 * chroma_2).sqrt() * _sin(turn / 2)

    mean_light, mean_chroma, total = (light_1 + light_2) / 2, (chroma_1 + chroma_2) / 2, hue_1 + hue_2
    far = (hue_1 - hue_2).abs() > 180
    mean_hue = torch.where(far, torch.where(total < 360, total + 360, total - 360), total) / 2

    t = (
        1
        - 0.17 * _cos(mean_hue - 30)
        + 0.24 * _cos(2 * mean_hue)
        + 0.32 * _cos(3 * mean_hue + 6)
        - 0.20 * _cos(4 * mean_hue - 63)
    )
    offset = (mean_light - 50).square()
    light = light / (1 + 0.015 * offset / (20 + offset).sqrt())
    chroma, hue = chroma / (1 + 0.045 * mean_chroma), hue / (1 + 0.015 * mean_chroma * t)
    turned = 30 * (-((mean_hue - 275) / 25).square()).exp()
    rotation = -_sin(2 * turned) * 2 * _weight_of(mean_chroma)
    return (light.square() + chroma.square() + hue.square() + rotation * chroma * hue).clamp(min=0).sqrt()


def _weight_of(chroma: Tensor) -> Tensor:
    # Of the quotient, since the seventh power of a chroma of 130 leaves few digits.
    return 1 / (1 + (25 / chroma.clamp(min=1e-4)) ** 7).sqrt()


def _degrees(a: Tensor, b: Tensor) -> Tensor:
    return torch.rad2deg(torch.atan2(b, a)) % 360


def _sin(degrees: Tensor) -> Tensor:
    return (degrees * (math.pi / 180)).sin()


def _cos(degrees: Tensor) -> Tensor:
    return (degrees * (math.pi / 180)).cos()
