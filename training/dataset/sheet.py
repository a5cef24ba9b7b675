"""Rows of a set to look at: picture, hint, words."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

TILE = 224
"""Pixels of the longer side of a picture."""
GAP = 8
COLUMNS = 3
TEXT = 14
LINES = 3
"""Of the caption, at most."""
LINE = TEXT + 4
FONTS = ("msyh.ttc", "Arial Unicode.ttf", "NotoSansCJK-Regular.ttc", "DejaVuSans.ttf", "arial.ttf")
"""Of Windows, macOS and Linux, those with most letters first. Pillow's own has ASCII alone."""
GROUND, INK, QUIET, ALARM = "white", "black", "dimgray", "darkred"


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class Cell(NamedTuple):
    title: str
    picture: np.ndarray | None
    """(H, W, 3) uint8; None where there is only something to say."""
    hint: np.ndarray | None
    text: str


def some_of_each(groups: Sequence[Sequence[int]], count: int, seed: int) -> list[int]:
    """At most `count` members, in order: one at random of each group, evenly over the groups, before there is a second of any."""
    chance = random.Random(seed)
    shuffled = [chance.sample(group, len(group)) for group in groups]
    found: list[int] = []
    for turn in range(max(map(len, shuffled), default=0)):
        there = [group[turn] for group in shuffled if turn < len(group)]
        wanted = min(len(there), count - len(found))
        found += [there[number * len(there) // wanted] for number in range(wanted)]
    return sorted(found)


def contact_sheet(cells: Sequence[Cell]) -> Tensor:
    """(1, H, W, 3) float 0..1."""
    columns = min(COLUMNS, max(1, len(cells)))
    rows = -(-len(cells) // columns)
    width, height = 2 * TILE + 3 * GAP, TILE + (1 + LINES) * LINE + 3 * GAP
    sheet = Image.new("RGB", (columns * width, rows * height), GROUND)
    pen = ImageDraw.Draw(sheet)
    for number, cell in enumerate(cells):
        left, top = number % columns * width + GAP, number // columns * height + GAP
        tiles = [_tile(picture) for picture in (cell.picture, cell.hint) if picture is not None]
        for tile in tiles:
            sheet.paste(tile, (left, top + (TILE - tile.height) // 2))
            left += tile.width + GAP
        left = number % columns * width + GAP
        top += TILE + GAP // 2
        ink = INK if tiles else ALARM
        for text, colour, most in ((cell.title, QUIET, 1), (cell.text, ink, LINES)):
            font = _font(text.isascii())
            for line in _lines(text, font, width - 2 * GAP, most):
                pen.text((left, top), line, fill=colour, font=font)
                top += LINE
    return torch.from_numpy(np.asarray(sheet).copy())[None].float() / 255


@cache
def _font(ascii_only: bool) -> Font:
    for name in () if ascii_only else FONTS:
        with suppress(OSError):  # not on this machine
            return ImageFont.truetype(name, TEXT)
    return ImageFont.load_default(TEXT)


def _tile(picture: np.ndarray) -> Image.Image:
    tile = Image.fromarray(picture)
    tile.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
    return tile


def _lines(text: str, font: Font, width: int, most: int) -> list[str]:
    """At most that many lines of at most `width` pixels; what does not fit ends in dots."""
    lines = list(_wrapped(text, font, width))
    if len(lines) <= most:
        return lines
    last = lines[most - 1]
    while last and font.getlength(f"{last} ...") > width:
        last = last[:-1]
    return [*lines[: most - 1], f"{last} ..."]


def _wrapped(text: str, font: Font, width: int) -> Iterator[str]:
    line = ""
    for word in text.split():
        while font.getlength(word) > width:  # one that no line holds, as in languages without spaces
            fits = next(count for count in range(len(word), 0, -1) if font.getlength(word[:count]) <= width)
            if line:
                yield line
                line = ""
            yield word[:fits]
            word = word[fits:]
        longer = f"{line} {word}".strip()
        if font.getlength(longer) <= width:
            line = longer
        else:
            yield line
            line = word
    if line:
        yield line
