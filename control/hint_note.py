"""Remarks on hints that are right for some controls and wrong for most: said in the report, never an error."""

from __future__ import annotations

import torch
from torch import Tensor

PICTURES = 4
"""Pictures of a batch that are looked at."""
STRIDE = 2
WHITE, BLACK = 0.9, 0.1
MOSTLY_WHITE = 0.75
"""Share of white pixels: drawings of black lines on white have more, segmentations, depth maps and codes less."""
ALMOST_BINARY = 0.9
"""Share of pixels that are white or black: the rest are the edges of lines."""

INVERTED = "The hint is mostly white, but controls for lines expect white lines on black: if it shows dark lines on white, invert it"


def hint_note(hint_bchw: Tensor) -> str:
    """A remark on a hint (N, C, H, W), or nothing. A light ground cannot be told for certain from a hint that is meant to be light."""
    some = hint_bchw[:: -(-len(hint_bchw) // PICTURES), :, ::STRIDE, ::STRIDE]
    if some.shape[1] not in (1, 3):
        return ""
    white = (some >= WHITE).all(dim=1)
    black = (some <= BLACK).all(dim=1)
    shares = torch.stack([white.float().mean(), (white | black).float().mean(), black.float().mean()]).tolist()
    inverted = shares[0] >= MOSTLY_WHITE and shares[1] >= ALMOST_BINARY and shares[2] > 0
    return INVERTED if inverted else ""
