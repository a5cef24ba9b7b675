"""Draws which colour each class of a palette has.

python host.py python -m control_composer.benchmarks.palette_legend ade20k docs/preprocessors/ade20k.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..preprocessors.palettes import ADE20K, COCO, Palette

PALETTES = {"ade20k": ADE20K, "coco": COCO}
COLUMNS, WIDTH, HEIGHT, SWATCH, MARGIN = 5, 200, 20, 36, 8


def legend(palette: Palette) -> Image.Image:
    """Number, colour and first name of each class, column by column."""
    rows = -(-len(palette.classes) // COLUMNS)
    picture = Image.new("RGB", (COLUMNS * WIDTH + MARGIN, rows * HEIGHT + 2 * MARGIN), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=12)
    for number, (colour, names) in enumerate(palette.classes):
        x, y = MARGIN + number // rows * WIDTH, MARGIN + number % rows * HEIGHT
        draw.rectangle((x, y + 2, x + SWATCH, y + HEIGHT - 2), fill=colour, outline="gray")
        draw.text((x + SWATCH + MARGIN, y + 3), f"{number} {names.split(', ')[0]}", fill="black", font=font)
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("palette", choices=list(PALETTES))
    parser.add_argument("file", type=Path)
    given = parser.parse_args()
    legend(PALETTES[given.palette]).save(given.file, optimize=True)


if __name__ == "__main__":
    main()
