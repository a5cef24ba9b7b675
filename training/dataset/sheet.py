"""Rows of a set to look at: picture, hint, words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
LINE = TEXT + 4
GROUND, INK, ALARM = "white", "black", "darkred"


class Cell(NamedTuple):
    picture: np.ndarray | None
    """(H, W, 3) uint8; None where there is only something to say."""
    hint: np.ndarray | None
    text: str


def contact_sheet(cells: Sequence[Cell]) -> Tensor:
    """(1, H, W, 3) float 0..1."""
    columns = min(COLUMNS, max(1, len(cells)))
    rows = -(-len(cells) // columns)
    width, height = 2 * TILE + 3 * GAP, TILE + LINES * LINE + 3 * GAP
    sheet = Image.new("RGB", (columns * width, rows * height), GROUND)
    font = ImageFont.load_default(TEXT)
    for number, cell in enumerate(cells):
        left, top = number % columns * width, number // columns * height
        for place, picture in enumerate((cell.picture, cell.hint)):
            if picture is not None:
                tile = Image.fromarray(picture)
                tile.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
                corner = left + GAP + place * (TILE + GAP)
                sheet.paste(tile, (corner + (TILE - tile.width) // 2, top + GAP + (TILE - tile.height) // 2))
        pen = ImageDraw.Draw(sheet)
        ink = INK if cell.picture is not None else ALARM
        for line, words in enumerate(_lines(cell.text, font, width - 2 * GAP)):
            pen.text((left + GAP, top + 2 * GAP + TILE + line * LINE), words, fill=ink, font=font)
    return torch.from_numpy(np.asarray(sheet).copy())[None].float() / 255


def _lines(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """At most `LINES` lines of that many pixels; what does not fit ends in dots."""
    lines = list(_wrapped(text, font, width))
    if len(lines) <= LINES:
        return lines
    last = lines[LINES - 1]
    while last and font.getlength(f"{last} …") > width:
        last = last[:-1]
    return [*lines[: LINES - 1], f"{last} …"]


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> Iterator[str]:
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
