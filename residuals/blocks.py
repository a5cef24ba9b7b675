"""Blocks: the places in a UNet that receive a residual."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Place = Literal["input", "output", "middle"]

NOMINAL_LATENT = 64
"""Latent cells per side at 512 pixels, the size for which the ControlNet paper states its block resolutions (section 3.4)."""


@dataclass(frozen=True)
class Block:
    """One place that receives a residual.

    `place` and `index` name the host's list and the position in it ("output" 0 is the first encoder block, the finest),
    `level` counts the halvings of the latent before it, `height` and `width` are its actual size in latent cells. What acts inside of the UNet
    instead names a `part` of it ("attention"); there `place` and `index` are those of the UNet's own block.
    """

    place: Place
    index: int
    level: int
    channels: int
    height: int
    width: int
    part: str = ""

    @property
    def name(self) -> str:
        number = "" if self.place == "middle" and self.index == 0 else str(self.index)
        return " ".join(filter(None, (self.part, self.place, number)))

    @property
    def nominal_size(self) -> float:
        """Size in latent cells that the block has at 512×512 pixels: 64, 32, 16, 8 by level."""
        return NOMINAL_LATENT / 2.0**self.level

    @property
    def actual_size(self) -> float:
        """Side in latent cells of the square that has the block's area: sqrt(height · width)."""
        return math.sqrt(self.height * self.width)


@dataclass(frozen=True)
class Layout:
    """Level and channels of each encoder block and of the middle of a UNet, in order; sizes come with the latent."""

    encoder: tuple[tuple[int, int], ...]
    middle: tuple[int, int]

    @property
    def connections(self) -> int:
        """Number of residuals: 13 for SD1 and SD2, 10 for SDXL."""
        return len(self.encoder) + 1

    def blocks(self, height: int, width: int) -> tuple[Block, ...]:
        """The blocks for a latent of `height` × `width` cells: "output" 0 … n-1, then the middle."""
        encoder = (
            Block("output", index, level, channels, halve(height, level), halve(width, level))
            for index, (level, channels) in enumerate(self.encoder)
        )
        level, channels = self.middle
        return (*encoder, Block("middle", 0, level, channels, halve(height, level), halve(width, level)))


def halve(size: int, times: int) -> int:
    """Length after `times` convolutions of kernel 3, stride 2, padding 1: each rounds half of it up."""
    return -(-size // (1 << times))


def level_between(size: int, smaller: int) -> int:
    """How often `size` was halved, each time rounding up, to become `smaller`; the nearest whole number where no count gives it."""
    exact = (level for level in range(size.bit_length() + 1) if halve(size, level) == smaller)
    return next(exact, max(0, round(math.log2(size / smaller))))
