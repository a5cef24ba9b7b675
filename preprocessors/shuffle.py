"""Content shuffle: the picture pulled out of shape, so that only its colours and textures stay."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from .frames import VALUES_PER_PIXEL, each_frame
from .preprocessor import Parameter, Preprocessor

WAVE = 256
"""Pixels from one random displacement to the next; lllyasviel/ControlNet, annotator/shuffle."""

STEPS = 32


def shuffle(image_bhwc: Tensor, *, seed: int = 0, resolution: int = 0) -> Tensor:
    """Every frame pulled by the same smooth random field of `seed`.

    (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter side at `resolution` (0: its own).
    """
    import cv2  # here, because importing the pack must stay fast

    def field(random: np.random.Generator, height: int, width: int) -> np.ndarray:
        noise = random.uniform(0, 1, (height // WAVE + 2, width // WAVE + 2))
        smooth = cv2.resize(noise, (width + 2 * WAVE, height + 2 * WAVE), interpolation=cv2.INTER_CUBIC)
        inside = smooth[WAVE : WAVE + height, WAVE : WAVE + width]
        inside = inside - inside.min()
        highest = inside.max()
        flat: np.ndarray = inside / highest if highest > 0 else inside
        return flat

    @cache
    def places(height: int, width: int) -> np.ndarray:
        random = np.random.default_rng(seed)
        x = field(random, height, width) * (width - 1)
        y = field(random, height, width) * (height - 1)
        return np.stack([x, y], axis=2).astype(np.float32)

    def recipe(picture: np.ndarray) -> np.ndarray:
        pulled: np.ndarray = cv2.remap(picture, places(*picture.shape[:2]), None, cv2.INTER_LINEAR)
        return pulled

    def batched(picture: Tensor) -> Tensor:
        return pulled_8_bit(picture, places(*picture.shape[1:3])).to(torch.uint8)

    return each_frame(image_bhwc, resolution, recipe, batched)


def pulled_8_bit(picture_bhwc: Tensor, places: np.ndarray) -> Tensor:
    """cv2.remap with bilinear interpolation. (B, H, W, C) whole numbers and places (H, W, 2) = x, y inside of the picture -> the same shape."""
    height, width = picture_bhwc.shape[1:3]
    if remap_rounds():
        places = np.rint(places * STEPS) / np.float32(STEPS)
    first = np.floor(places).astype(np.int64)
    x, y = (
        torch.from_numpy(part).to(picture_bhwc.device).unsqueeze(-1)
        for part in np.moveaxis(places - first, -1, 0).astype(np.float32)
    )
    pixels = picture_bhwc.flatten(1, 2)

    def corner(right: int, lower: int) -> Tensor:
        columns, rows = (first + np.array([right, lower])).clip(0, [width - 1, height - 1]).reshape(-1, 2).T
        return pixels.index_select(1, torch.from_numpy(rows * width + columns).to(pixels.device)).view(
            picture_bhwc.shape
        )

    found = corner(0, 0).mul_((1 - x) * (1 - y))
    found.add_(corner(1, 0).mul_(x * (1 - y)))
    found.add_(corner(0, 1).mul_((1 - x) * y))
    return found.add_(corner(1, 1).mul_(x * y)).add_(0.5).floor_()


@cache
def remap_rounds() -> bool:
    """Whether this OpenCV rounds places to 1 / 32 of a pixel, as those before 5 do: half of that is nothing to them."""
    import cv2  # here, because importing the pack must stay fast

    place = np.array([[[0.5 / STEPS, 0]]], np.float32)
    return bool(cv2.remap(np.array([[0, 255]], np.uint8), place, None, cv2.INTER_LINEAR)[0, 0] == 0)


SHUFFLE = Preprocessor(
    id="Shuffle",
    name="Content Shuffle",
    function=shuffle,
    parameters=(
        Parameter(
            "seed",
            default=0,
            minimum=0,
            maximum=2**53 - 1,
            step=1,
            tooltip="Another number pulls the picture in another way; the same number in the same.",
        ),
    ),
    values_per_pixel=VALUES_PER_PIXEL,
    output="the picture pulled out of shape",
    description="Keeps colours and textures and loses the shapes: for the shuffle ControlNet, with its pooling on.",
    aliases=("ShufflePreprocessor", "shuffle", "style"),
)
