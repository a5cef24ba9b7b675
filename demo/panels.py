"""Pages of captioned pictures in rows, for the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

GAP = 8
HEADING, CAPTION = 24, 18
INK, FAINT, FRAME = "#1b1b1f", "#55555f", "#c9c9d2"


@dataclass(frozen=True)
class Row:
    """A heading and pictures (H, W, 3) or masks (H, W) in 0..1, each with its caption below."""

    heading: str
    cells: Sequence[tuple[str, Tensor]]


def page(rows: Sequence[Row], scale: float = 1.0) -> Image.Image:
    """The rows below each other, pictures enlarged by `scale`."""
    drawn = [_row(row, scale) for row in rows]
    sheet = Image.new("RGB", (max(row.width for row in drawn), sum(row.height for row in drawn)), "white")
    top = 0
    for row in drawn:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def save_page(path: Path, rows: Sequence[Row], scale: float = 1.0, quality: int = 86) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    page(rows, scale).save(path, quality=quality)


def as_image(picture: Tensor, scale: float = 1.0) -> Image.Image:
    image = Image.fromarray((picture.clamp(0, 1) * 255).round().byte().cpu().numpy()).convert("RGB")
    size = (round(image.width * scale), round(image.height * scale))
    return image if scale == 1 else image.resize(size, Image.Resampling.LANCZOS)


def _row(row: Row, scale: float) -> Image.Image:
    images = [as_image(picture, scale) for _, picture in row.cells]
    small, large = ImageFont.load_default(12), ImageFont.load_default(15)
    widths = [
        max(image.width, round(small.getlength(line)))
        for image, (caption, _) in zip(images, row.cells, strict=True)
        for line in [max(caption.split("\n"), key=len)]
    ]
    lines = max(caption.count("\n") + 1 for caption, _ in row.cells)
    width = max(sum(widths) + GAP * (len(widths) + 1), round(large.getlength(row.heading)) + 2 * GAP)
    height = max(image.height for image in images)
    strip = Image.new("RGB", (width, HEADING + height + CAPTION * lines + GAP), "white")
    pen = ImageDraw.Draw(strip)
    pen.text((GAP, 4), row.heading, fill=INK, font=large)
    left = GAP
    for image, (caption, _), room in zip(images, row.cells, widths, strict=True):
        strip.paste(image, (left, HEADING))
        pen.rectangle((left - 1, HEADING - 1, left + image.width, HEADING + image.height), outline=FRAME)
        for number, line in enumerate(caption.split("\n")):
            pen.text((left, HEADING + image.height + 2 + number * (CAPTION - 3)), line, fill=FAINT, font=small)
        left += room + GAP
    return strip
