"""Which part of a picture a row shows, and that part at the row's size."""

from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np
from PIL import Image

from ...preprocessors.careful_resize import resized
from ...preprocessors.sizing import Size
from .settings import DatasetSettings, HintKind

CLOSEST = 1.5
"""How much smaller than the whole, by side, a part taken at random may be."""


class Cut(NamedTuple):
    """The rectangle of the picture, in its pixels, that becomes `size`."""

    top: int
    left: int
    height: int
    width: int
    size: Size
    flip: bool = False

    @property
    def enlarged(self) -> float:
        """Pixels of the row for each of the picture, along a side; above 1 it is blurred."""
        return max(self.size.height / self.height, self.size.width / self.width)

    def of_picture(self, picture: Image.Image) -> np.ndarray:
        """(H, W, 3) uint8 of an RGB picture."""
        box = (self.left, self.top, self.left + self.width, self.top + self.height)
        shown = picture.resize(self.size[::-1], Image.Resampling.LANCZOS, box=box)
        array = np.array(shown)  # a copy, since Pillow's own cannot be written to
        return np.ascontiguousarray(array[:, ::-1]) if self.flip else array

    def of_hint(self, hint: np.ndarray, picture: Size, kind: HintKind) -> np.ndarray:
        """(H, W, 3) uint8 of the hint (h, w, 3) uint8 that came with a picture of this size; it may have more or fewer pixels itself."""
        down, across = hint.shape[0] / picture.height, hint.shape[1] / picture.width
        top, bottom = _span(self.top * down, (self.top + self.height) * down, hint.shape[0])
        left, right = _span(self.left * across, (self.left + self.width) * across, hint.shape[1])
        part = hint[top:bottom, left:right]
        if part.shape[:2] != tuple(self.size):
            part = (resized(part.astype(np.float32) / 255, self.size) * 255).round().clip(0, 255).astype(np.uint8)
        return np.array(mirrored(part, kind) if self.flip else part)


def mirrored(hint: np.ndarray, kind: HintKind) -> np.ndarray:
    """(H, W, 3) uint8 as the mirrored picture would have it."""
    flipped: np.ndarray = hint[:, ::-1]
    if kind != "normals":
        return flipped
    # Black is no direction: nothing is there.
    there = flipped.any(axis=2)
    flipped = flipped.copy()
    flipped[..., 0] = np.where(there, 255 - flipped[..., 0], 0)
    return flipped


def cuts(picture: Size, size: Size, name: str, settings: DatasetSettings) -> list[Cut]:
    """Those of one picture at this size: the centre, others by seed and name, each followed by its mirror image.

    Where the picture has no other part of that shape without enlarging it, there are fewer than asked for.
    """
    found = dict.fromkeys([_cut(picture, size, 1.0, 0.5, 0.5)])
    # How many pixels of the picture each of the row's has to choose from.
    spare = min(picture.height / size.height, picture.width / size.width)
    for number in range(1, settings.crops):
        # By name, so that pictures that come to a set leave the parts of the others as they are.
        chance = random.Random(f"{settings.seed}/{number}/{name}")
        zoom = chance.uniform(1.0, min(max(spare, 1.0), CLOSEST))
        found[_cut(picture, size, zoom, chance.random(), chance.random())] = None
    flips = (False, True) if settings.flip else (False,)
    return [cut._replace(flip=flip) for cut in found for flip in flips]


def _cut(picture: Size, size: Size, zoom: float, down: float, across: float) -> Cut:
    """The largest part of the size's shape, made smaller by `zoom`; `down` and `across` 0..1 say where it lies."""
    scale = min(picture.height / size.height, picture.width / size.width) / zoom
    height = min(picture.height, max(1, round(size.height * scale)))
    width = min(picture.width, max(1, round(size.width * scale)))
    return Cut(int((picture.height - height) * down), int((picture.width - width) * across), height, width, size)


def _span(start: float, end: float, length: int) -> tuple[int, int]:
    """Whole pixels from the nearest border to the nearest border, one at least."""
    first = min(round(start), length - 1)
    return first, max(first + 1, min(round(end), length))
