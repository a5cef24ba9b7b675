"""Heatmaps: the norms of a record as a picture, block × step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .errors import ControlError
from .norms import Norm, read_norms, strength_of
from .record import Record

BACKGROUND, INK, FAINT = "#ffffff", "#1b1b1f", "#6b6b76"
NOTHING, UNKNOWN, BROKEN = "#e4e4ea", "#9a9aa6", "#e0182d"
MARGIN = 24
LABEL = 84
"""Room for the names of the blocks; more for longer ones."""
BAR = 112
"""Room for the colour scale and its numbers."""
PLOT_WIDTH = 760
DECADES = 3
"""What is a thousandth of the strongest cell cannot be told from nothing in the result, and has the scale's last colour."""


@dataclass(frozen=True)
class Grid:
    """One panel: `values` by block and step; 0 where nothing was added, -1 where the feature is not known, NaN where a norm is not finite."""

    title: str
    blocks: tuple[str, ...]
    values: np.ndarray


@dataclass(frozen=True)
class Scale:
    """Logarithmic colours between two numbers."""

    low: float
    high: float
    relative: bool

    def colour(self, value: float) -> tuple[int, int, int]:
        place = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return viridis()[round(255 * min(1.0, max(0.0, place)))]

    def text(self, value: float) -> str:
        return (
            f"{100 * value:.2g} %"
            if self.relative and value < 0.995
            else f"{100 * value:.0f} %"
            if self.relative
            else f"{value:.3g}"
        )

    def ticks(self) -> list[float]:
        """1, 2 and 5 of every decade within the scale."""
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        every = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
        return [tick for tick in every if self.low * 0.999 <= tick <= self.high * 1.001]


def viridis() -> list[tuple[int, int, int]]:
    """256 colours, from dark to light in even steps for the eye."""
    import cv2  # here, because importing the pack must stay fast

    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)[:, 0, ::-1]
    return [(int(r), int(g), int(b)) for r, g, b in table]


def heatmap(record: Record) -> Tensor:
    """The picture (1, H, W, 3) in 0..1: a panel for all layers together and, if there are several, one for each.

    A cell is ‖residual‖ / ‖feature it is added to‖ over the rows that get one, or ‖residual‖ alone for models that do not show their features.
    Raises ControlError for a record without norms.
    """
    norms = read_norms(record)
    if not norms:
        raise ControlError(
            "The recorded sampling run of this control has no norms, but a heatmap is drawn from them; "
            "switch on inspect at Compose Controls and sample again."
            if not record.inspect
            else "The recorded sampling run of this control has no norms, because no layer ran in it, but a heatmap is drawn from them; "
            "look at Control Report for the reasons."
        )
    relative = any(norm.feature is not None for norm in norms)
    grids = _grids(record, norms, relative)
    drawn = _draw(grids, _scale(grids, relative))
    return torch.from_numpy(np.asarray(drawn, dtype=np.float32) / 255.0)[None]


def _grids(record: Record, norms: Sequence[Norm], relative: bool) -> list[Grid]:
    names = {layer.number: f"{layer.number}. {layer.name}" for layer in record.layers}
    layers = sorted({norm.layer for norm in norms if norm.layer is not None})
    panels: list[tuple[int | None, str]] = []
    if any(norm.layer is None for norm in norms):
        panels.append((None, "All layers together" if len(record.layers) != 1 else names[record.layers[0].number]))
    if len(layers) > 1 or not panels:
        panels += [(layer, names.get(layer, f"Layer {layer}")) for layer in layers]
    blocks = tuple(sorted({norm.block for norm in norms}, key=lambda name: _order(name, relative)))
    grids = []
    for layer, title in panels:
        own = [norm for norm in norms if norm.layer == layer]
        rows = tuple(block for block in blocks if layer is None or block in _places(record, layer, own))
        grids.append(Grid(title, rows, _values(record, own, rows, relative)))
    return grids


def _places(record: Record, layer: int, norms: Sequence[Norm]) -> set[str]:
    """The blocks that a layer may add to, those of weight 0 among them."""
    fed = {block for entry in record.steps if entry.layer == layer for block, _ in entry.blocks}
    return fed | {norm.block for norm in norms}


def _order(block: str, unet: bool) -> tuple[str, int, int]:
    """Rows in the order in which the model passes the blocks; a UNet takes its "input" residuals from the end of the list.

    What acts inside of the UNet comes after, and counts as the UNet does.
    """
    words = block.split(" ")
    number = int(words.pop()) if words[-1].isdigit() else 0
    place, part = words.pop(), " ".join(words)
    if part:
        return part, ("input", "middle", "output").index(place), number
    return part, ("input", "output", "middle").index(place), -number if unet and place == "input" else number


def _values(record: Record, norms: Sequence[Norm], blocks: tuple[str, ...], relative: bool) -> np.ndarray:
    numbers = record.step_numbers()
    values = np.zeros((len(blocks), record.step_count))
    cells: dict[tuple[int, int], list[Norm]] = {}
    for norm in norms:
        cells.setdefault((blocks.index(norm.block), numbers[norm.call] - 1), []).append(norm)
    for cell, same in cells.items():
        absolute, share = strength_of(same)
        value = share if relative else absolute
        values[cell] = -1.0 if value is None else value if math.isfinite(value) else np.nan
    return values


def _scale(grids: Sequence[Grid], relative: bool) -> Scale:
    """From the weakest to the strongest cell, widened to 1, 2 or 5 of a decade; at least one decade and at most three."""
    values = np.concatenate([grid.values[grid.values > 0] for grid in grids])
    if not len(values):
        return Scale(0.01, 1.0, relative)
    high = _round(float(values.max()), up=True)
    low = _round(min(max(float(values.min()), high / 10**DECADES), high / 10), up=False)
    return Scale(low, high, relative)


def _round(value: float, up: bool) -> float:
    decade = 10.0 ** math.floor(math.log10(value))
    steps = [digit * decade for digit in (1, 2, 5, 10)]
    return min(s for s in steps if s >= value * 0.9999) if up else max(s for s in steps if s <= value * 1.0001)


# -- drawing ---------------------------------------------------------------------------------------------------------------------------------


def _draw(grids: Sequence[Grid], scale: Scale) -> Image.Image:
    steps, rows = grids[0].values.shape[1], max(len(grid.blocks) for grid in grids)
    cell_width = max(4, min(56, PLOT_WIDTH // steps))
    cell_height = 26 if rows <= 20 else 16
    plot_width = max(cell_width * steps, 520)
    heights = [30 + cell_height * len(grid.blocks) + 44 for grid in grids]
    label = max(LABEL, *(14 + round(_font(13).getlength(name)) for grid in grids for name in grid.blocks))
    width = 2 * MARGIN + label + plot_width + BAR
    page = Image.new("RGB", (width, 76 + sum(heights) + MARGIN), BACKGROUND)
    pen = ImageDraw.Draw(page)
    what = "how much is added" if scale.relative else "norm of what is added"
    pen.text((MARGIN, 18), f"Residual heatmap: {what}, by block and step", fill=INK, font=_font(19))
    pen.text((MARGIN, 46), _fitting(_caption(scale, grids), width - 2 * MARGIN, 13), fill=FAINT, font=_font(13))
    top = 76
    for grid, height in zip(grids, heights, strict=True):
        pen.text((MARGIN, top + 6), _fitting(grid.title, width - 2 * MARGIN, 15), fill=INK, font=_font(15))
        corner = (MARGIN + label, top + 30)
        _draw_grid(pen, grid, scale, corner, (cell_width, cell_height))
        _draw_bar(pen, scale, (corner[0] + cell_width * steps + 26, corner[1]), cell_height * len(grid.blocks))
        top += height
    return page


def _caption(scale: Scale, grids: Sequence[Grid]) -> str:
    words = (
        "Norm of the residual in % of the feature's. Light grey: nothing added."
        if scale.relative
        else "Norm of the residual; this model does not show its features. Light grey: nothing added."
    )
    if any((grid.values < 0).any() for grid in grids):
        words += " Dark grey: feature unknown."
    if any(np.isnan(grid.values).any() for grid in grids):
        words += " Red: NaN or infinite."
    return words


def _draw_grid(
    pen: ImageDraw.ImageDraw, grid: Grid, scale: Scale, corner: tuple[int, int], cell: tuple[int, int]
) -> None:
    (left, top), (width, height) = corner, cell
    rows, steps = grid.values.shape
    gap = 1 if width >= 8 else 0
    for row, name in enumerate(grid.blocks):
        middle = top + row * height + height // 2
        pen.text((left - 10, middle), name, fill=INK, font=_font(13 if height > 20 else 11), anchor="rm")
        for step in range(steps):
            value = float(grid.values[row, step])
            box = (
                left + step * width,
                top + row * height,
                left + (step + 1) * width - 1 - gap,
                top + (row + 1) * height - 2,
            )
            fill = (
                BROKEN
                if math.isnan(value)
                else UNKNOWN
                if value < 0
                else NOTHING
                if value == 0
                else scale.colour(value)
            )
            pen.rectangle(box, fill=fill)
            if width >= 44 and value > 0 and height > 20:
                bright = sum(weight * part for weight, part in zip((0.3, 0.59, 0.11), scale.colour(value), strict=True))
                pen.text(
                    ((box[0] + box[2]) / 2, middle),
                    scale.text(value),
                    fill="#000000" if bright > 120 else "#ffffff",
                    font=_font(11),
                    anchor="mm",
                )
    every = next(every for every in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**9) if every * width >= 26)
    below = top + rows * height + 4
    for step in range(1, steps + 1):
        if step == 1 or step % every == 0:
            pen.text((left + (step - 0.5) * width, below), str(step), fill=FAINT, font=_font(12), anchor="mt")
    pen.text((left, below + 17), "step of the sampler", fill=FAINT, font=_font(12))


def _draw_bar(pen: ImageDraw.ImageDraw, scale: Scale, corner: tuple[int, int], height: int) -> None:
    left, top = corner
    height = max(60, height - 2)
    table = viridis()
    for line in range(height):
        pen.line((left, top + line, left + 14, top + line), fill=table[round(255 * (1 - line / (height - 1)))])
    ticks = scale.ticks()
    if len(ticks) * 14 > height:
        ticks = [tick for tick in ticks if f"{tick:e}".startswith("1")] or ticks[:: len(ticks) - 1]
    for tick in ticks:
        place = (math.log(tick) - math.log(scale.low)) / (math.log(scale.high) - math.log(scale.low))
        y = top + (1 - place) * (height - 1)
        pen.line((left + 14, y, left + 18, y), fill=FAINT)
        pen.text((left + 22, y), scale.text(tick), fill=INK, font=_font(12), anchor="lm")


def _fitting(text: str, width: int, size: int) -> str:
    """The text, its end cut off where the line is shorter."""
    font = _font(size)
    while len(text) > 1 and font.getlength(text) > width:
        text = text[:-2].rstrip("…") + "…"
    return text


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
