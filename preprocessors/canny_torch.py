"""OpenCV's Canny with tensors, to the same bits, for pictures that live on an accelerator."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from .gaussians import nearest_places

TANGENT = 13573
"""Of 22.5°, in 1 / 2^15, as OpenCV rounds it; that of 67.5° is it plus 2."""
SHIFT = 15
FRAMES_PER_WORD = 32
STEPS_PER_QUESTION = 16
"""Steps of growing between questions whether anything grew, for each of which the accelerator is waited for."""


def canny_edges(picture_bhwc: Tensor, low: float, high: float) -> Tensor:
    """cv2.Canny(picture, low, high) > 0. (B, H, W, C) whole numbers 0..255 in any dtype -> (B, H, W) bool."""
    low, high = sorted((math.floor(low), math.floor(high)))
    across, down, strength = strongest_gradient(picture_bhwc)
    ridge = on_a_ridge(across, down, strength) & (strength > low)
    return connected(ridge & (strength > high), ridge)


def strongest_gradient(picture_bhwc: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sobel's derivatives along the rows and the columns, 3 × 3, the border repeated, and the sum of their sizes, in the channel where that is
    largest (the first of equals). Three times (B, H, W) int16.
    """
    found: tuple[Tensor, Tensor, Tensor] | None = None
    for channel in picture_bhwc.to(torch.int16).unbind(-1):
        wide = bordered(channel)
        upper, middle, lower = wide[:, :-2], wide[:, 1:-1], wide[:, 2:]
        smooth = upper + middle + middle + lower
        across = smooth[..., 2:] - smooth[..., :-2]
        steep = lower - upper
        down = steep[..., :-2] + 2 * steep[..., 1:-1] + steep[..., 2:]
        strength = across.abs() + down.abs()
        if found is None:
            found = across, down, strength
        else:
            stronger = strength > found[2]
            pairs = zip((across, down, strength), found, strict=True)
            found = tuple(torch.where(stronger, new, old) for new, old in pairs)  # type: ignore[assignment]
    assert found is not None  # there are channels
    return found


def on_a_ridge(across: Tensor, down: Tensor, strength: Tensor) -> Tensor:
    """Where the strength is not less than that of both neighbours across the edge. (B, H, W) int16 -> bool."""
    height, width = strength.shape[1:]
    around = pad(strength, (1, 1, 1, 1))

    def beside(rows: int, columns: int) -> Tensor:
        return around[:, 1 + rows : 1 + rows + height, 1 + columns : 1 + columns + width]

    x, y = across.to(torch.int32).abs_(), down.to(torch.int32).abs_() << SHIFT
    flat = x * TANGENT
    is_upright = y < flat
    is_level = y > flat.add_(x << (SHIFT + 1))
    falls = (across ^ down) >= 0
    del x, y, flat
    upright = (strength > beside(0, -1)) & (strength >= beside(0, 1))
    level = (strength > beside(-1, 0)) & (strength >= beside(1, 0))
    falling = (strength > beside(-1, -1)) & (strength > beside(1, 1))
    rising = (strength > beside(-1, 1)) & (strength > beside(1, -1))
    return torch.where(is_upright, upright, torch.where(is_level, level, torch.where(falls, falling, rising)))


def connected(seeds: Tensor, ground: Tensor) -> Tensor:
    """The parts of `ground`, connected by sides or corners, that have a seed in them. (B, H, W) bool.

    Frames are the bits of whole numbers, so that a step costs as much for 32 as for one.
    """
    grown, allowed = packed(seeds), packed(ground)
    while True:
        before = grown
        for _ in range(STEPS_PER_QUESTION):
            grown = spread(grown).bitwise_and_(allowed)
        if settled(before, grown):
            return unpacked(grown, len(seeds))


def settled(before: Tensor, after: Tensor) -> bool:
    return torch.equal(before, after)


def spread(words: Tensor) -> Tensor:
    """Every bit also in the eight words around its own. (G, H, W)."""
    wide = words.clone()
    wide[..., 1:] |= words[..., :-1]
    wide[..., :-1] |= words[..., 1:]
    tall = wide.clone()
    tall[:, 1:] |= wide[:, :-1]
    tall[:, :-1] |= wide[:, 1:]
    return tall


def packed(frames: Tensor) -> Tensor:
    """(B, H, W) bool -> (ceil(B / 32), H, W) int32, a frame in each bit."""
    count, height, width = frames.shape
    words = torch.zeros(-(-count // FRAMES_PER_WORD), height, width, dtype=torch.int32, device=frames.device)
    for number, frame in enumerate(frames):
        words[number // FRAMES_PER_WORD] |= frame.to(torch.int32) << (number % FRAMES_PER_WORD)
    return words


def unpacked(words: Tensor, count: int) -> Tensor:
    """The first `count` frames of what `packed` made."""
    frames = torch.empty(count, *words.shape[1:], dtype=torch.bool, device=words.device)
    for number, frame in enumerate(frames):
        frame.copy_((words[number // FRAMES_PER_WORD] >> (number % FRAMES_PER_WORD)) & 1)
    return frames


def bordered(frames: Tensor) -> Tensor:
    """(B, H, W) with its border pixels repeated once, (B, H + 2, W + 2); whole numbers too, which torch's own padding does not repeat."""
    for dimension in (1, 2):
        places = nearest_places(frames.shape[dimension], 1)
        frames = frames.index_select(dimension, torch.from_numpy(places).to(frames.device))
    return frames
