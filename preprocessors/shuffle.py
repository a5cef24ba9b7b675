"""Content shuffle: the picture pulled out of shape, so that only its colours and textures stay."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from .frames import each_frame
from .preprocessor import Parameter, Preprocessor

WAVE = 256
"""Pixels from one random displacement to the next; lllyasviel/ControlNet, annotator/shuffle."""


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

    def recipe(picture: np.ndarray) -> np.ndarray:
        height, width = picture.shape[:2]
        random = np.random.default_rng(seed)
        x = field(random, height, width) * (width - 1)
        y = field(random, height, width) * (height - 1)
        pulled: np.ndarray = cv2.remap(picture, np.stack([x, y], axis=2).astype(np.float32), None, cv2.INTER_LINEAR)
        return pulled

    return each_frame(image_bhwc, resolution, recipe)


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
    output="the picture pulled out of shape",
    description="Keeps colours and textures and loses the shapes: for the shuffle ControlNet, with its pooling on.",
    aliases=("ShufflePreprocessor", "shuffle", "style"),
)
