"""Contact sheets: pictures in rows under headings, as one image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw
from torch import Tensor

_GAP = 4
_HEADING = 16


def sheet(columns: Sequence[tuple[str, Tensor]], across: int = 1) -> Image.Image:
    """A picture of labelled columns; each holds float images (N, H, W, 3) in 0..1, laid out `across` to a line."""
    height, width = columns[0][1].shape[1:3]
    lines = -(-max(len(images) for _, images in columns) // across)
    column_width = across * (width + _GAP) + _GAP
    page = Image.new("RGB", (column_width * len(columns), _HEADING + lines * (height + _GAP)), "white")
    pen = ImageDraw.Draw(page)
    for c, (title, images) in enumerate(columns):
        pen.text((c * column_width + _GAP, 2), title, fill="black")
        for n, image in enumerate((images.clamp(0, 1) * 255).round().byte().cpu().numpy()):
            left = c * column_width + (n % across) * (width + _GAP)
            page.paste(Image.fromarray(image), (left, _HEADING + n // across * (height + _GAP)))
    return page


def save_sheet(path: Path, columns: Sequence[tuple[str, Tensor]], across: int = 1) -> None:
    """Writes a sheet as JPEG or PNG, by the path's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet(columns, across).save(path, quality=90)
