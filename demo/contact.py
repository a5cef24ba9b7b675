"""Saved pictures of several graphs on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

SCALE = 2  # the demo's pictures are small
GAP = 8
HEADING = 26

Columns = Sequence[tuple[str, Sequence[Image.Image]]]


def contact_sheet(rows: Mapping[str, Columns]) -> Image.Image:
    """One page: a row for each graph, in it a titled column for each saving node, its batch two abreast."""
    drawn = [_row(name, columns) for name, columns in rows.items()]
    page = Image.new("RGB", (max(row.width for row in drawn), sum(row.height for row in drawn)), "white")
    top = 0
    for row in drawn:
        page.paste(row, (0, top))
        top += row.height
    return page


def thumbnail(columns: Columns) -> Image.Image:
    """Four pictures for the page's template browser: the hints, then what they led to, which is the last column."""
    hints = [pictures[0] for title, pictures in columns if title.startswith("Hint")]
    four = [picture.convert("RGB") for picture in (*hints, *columns[-1][1])][:4]
    return _block(four)


def _row(name: str, columns: Columns) -> Image.Image:
    blocks = [(title, _block([picture.convert("RGB") for picture in pictures])) for title, pictures in columns]
    width = sum(block.width + 2 * GAP for _, block in blocks) + GAP
    row = Image.new("RGB", (width, 2 * HEADING + max(block.height for _, block in blocks) + 2 * GAP), "white")
    pen = ImageDraw.Draw(row)
    pen.text((GAP, GAP), name.replace("_", " "), fill="black", font=ImageFont.load_default(16))
    left = GAP
    for title, block in blocks:
        pen.text((left, HEADING + GAP), title, fill="black", font=ImageFont.load_default(13))
        row.paste(block, (left, 2 * HEADING + GAP))
        left += block.width + 2 * GAP
    return row


def _block(pictures: Sequence[Image.Image]) -> Image.Image:
    abreast = min(2, len(pictures))
    width, height = (SCALE * side for side in pictures[0].size)
    block = Image.new(
        "RGB", (abreast * (width + GAP) - GAP, -(-len(pictures) // abreast) * (height + GAP) - GAP), "white"
    )
    for n, picture in enumerate(pictures):
        place = (n % abreast * (width + GAP), n // abreast * (height + GAP))
        block.paste(picture.resize((width, height), Image.Resampling.LANCZOS), place)
    return block
