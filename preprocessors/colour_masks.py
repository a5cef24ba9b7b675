"""Masks of things, each in a colour of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import PreprocessorError
from .segment_colours import seeded_colours


def colour_masks(masks_nhw: Tensor, seed: int = 0) -> Tensor:
    """(N, H, W) of 0..1, one for each thing of one picture -> (1, H, W, 3) float32 in 0..1: colours on black, the smaller on the larger.

    A pixel belongs to a mask from 0.5. Raises PreprocessorError for what are no masks.
    """
    if masks_nhw.ndim != 3:
        raise PreprocessorError(
            f"masks: found a tensor of shape {tuple(masks_nhw.shape)}, but masks (number, height, width) were expected; connect a MASK output."
        )
    masks = masks_nhw >= 0.5
    largest_first = masks.flatten(1).sum(dim=1).argsort(descending=True, stable=True).tolist()
    return painted(masks, largest_first, seed)[None]


def painted(masks_nhw: Tensor, order: Sequence[int], seed: int) -> Tensor:
    """(N, H, W) bool, painted one after the other -> (H, W, 3); the colour of a mask depends on its number alone."""
    numbers = torch.zeros(masks_nhw.shape[1:], dtype=torch.long, device=masks_nhw.device)
    for index in order:
        numbers.masked_fill_(masks_nhw[index], index + 1)
    colours = torch.cat([torch.zeros(1, 3), seeded_colours(masks_nhw.shape[0], seed)])
    return colours.to(masks_nhw.device)[numbers]
