"""Curves as a picture, drawn with Pillow alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFont

from .errors import TrainingError

# Okabe and Ito, 2008: told apart by colour-blind eyes too; their yellow is left out, which is pale on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
INK, FAINT, GRID = "#1b1b1f", "#55555f", "#e4e4ea"
GAP = 10
SMALL, LARGE = 12, 15
# Each side of the curves is drawn that much larger and then shrunk, which smooths them.
SMOOTH = 4
DOTS = 40
"""A line of no more points shows each of them."""
TICKS = 6
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Line:
    """One curve. A y that is no finite number is a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    band: tuple[Sequence[float], Sequence[float]] | None = None
    """Its lower and upper edge at each x."""


def chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_name: str,
    y_name: str,
    size: tuple[int, int] = (640, 400),
    log_x: bool = False,
    mark: float | None = None,
) -> Image.Image:
    """The lines in one RGB picture of `size` (width, height) in pixels, from 240 x 160 on.

    `log_x`: points at or left of 0 are left out. `mark`: an x that a dashed line points out. Lines without any point leave an empty frame.
    Raises TrainingError where a line's numbers do not go together or the picture is too small.
    """
    _check(lines, size)
    runs = [_finite(line, log_x) for line in lines]
    xs = [x for run in runs for x, *_ in run]
    ys = [y for run in runs for _, *values in run for y in values]
    if mark is not None and (mark > 0 or not log_x):
        xs.append(mark)
    else:
        mark = None
    page = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(page)
    small = ImageFont.load_default(SMALL)
    pen.text((GAP, GAP - 2), title, fill=INK, font=ImageFont.load_default(LARGE))
    top = _legend(pen, [line.name for line in lines], size[0], small)
    pen.text((GAP, top), y_name, fill=FAINT, font=small)
    x_axis = _Axis.over(xs, log_x)
    y_axis = _Axis.over(ys, False)
    labels = [_label(tick, y_axis.ticks) for tick in y_axis.ticks]
    left = GAP + round(max(small.getlength(label) for label in labels)) + 6
    frame = _Frame(left, top + 22, size[0] - 2 * GAP, size[1] - 42, x_axis, y_axis)

    for tick, label in zip(y_axis.ticks, labels, strict=True):
        height = frame.place(0, tick)[1]
        pen.line((frame.left, height, frame.right, height), fill=GRID)
        pen.text((frame.left - 6, height), label, fill=FAINT, font=small, anchor="rm")
    for tick in x_axis.ticks:
        across = frame.place(tick, 0)[0]
        pen.line((across, frame.top, across, frame.bottom), fill=GRID)
        label = _label(tick, x_axis.ticks)
        # The last label must not leave the picture.
        across = min(across, size[0] - 2 - small.getlength(label) / 2)
        pen.text((across, frame.bottom + 4), label, fill=FAINT, font=small, anchor="ma")
    pen.text(((frame.left + frame.right) / 2, size[1] - 6), x_name, fill=FAINT, font=small, anchor="mb")
    frame.curves(page, lines, runs)
    pen.line((frame.left, frame.top, frame.left, frame.bottom), fill=FAINT)
    pen.line((frame.left, frame.bottom, frame.right, frame.bottom), fill=FAINT)
    if mark is not None:
        _mark(pen, frame, mark, small)
    return page


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    log: bool
    ticks: tuple[float, ...]

    @classmethod
    def over(cls, values: Sequence[float], log: bool) -> _Axis:
        low, high = (min(values), max(values)) if values else (1.0, 10.0) if log else (0.0, 1.0)
        if log:
            if high / low < 1 + 1e-9:
                low, high = low / 2, high * 2
            return cls(low, high, True, _log_ticks(low, high))
        if high - low <= 1e-12 * max(abs(low), abs(high)):
            room = abs(low) / 2 or 0.5
            low, high = low - room, high + room
        step = _step(high - low)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        ticks = tuple(number * step for number in range(first, last + 1))
        return cls(ticks[0], ticks[-1], False, ticks)

    def share(self, value: float) -> float:
        """0 at the low end, 1 at the high one."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, self.low))
        return (value - low) / (high - low)


_Point = tuple[float, ...]
"""x, y, and the band's two edges where there is one."""


@dataclass(frozen=True)
class _Frame:
    left: int
    top: int
    right: int
    bottom: int
    x: _Axis
    y: _Axis

    def place(self, x: float, y: float) -> tuple[float, float]:
        """In pixels of the page."""
        return (
            self.left + self.x.share(x) * (self.right - self.left),
            self.bottom - self.y.share(y) * (self.bottom - self.top),
        )

    def curves(self, page: Image.Image, lines: Sequence[Line], runs: Sequence[Sequence[_Point]]) -> None:
        """Bands first, so that no line lies under one."""
        # With room for a stroke that runs along the edge.
        box = (self.left - 4, self.top - 4, self.right + 5, self.bottom + 5)
        part = page.crop(box)
        fine = part.resize((part.width * SMOOTH, part.height * SMOOTH), Image.Resampling.NEAREST)

        def at(x: float, y: float) -> tuple[float, float]:
            across, down = self.place(x, y)
            return (across - box[0]) * SMOOTH, (down - box[1]) * SMOOTH

        for number, (line, run) in enumerate(zip(lines, runs, strict=True)):
            for piece in _pieces(run, line) if line.band is not None else ():
                edge = [at(x, low) for x, _, low, _ in piece] + [at(x, high) for x, _, _, high in reversed(piece)]
                veil = Image.new("L", fine.size, 0)
                if len(piece) > 1:
                    ImageDraw.Draw(veil).polygon(edge, fill=52)
                fine.paste(COLOURS[number % len(COLOURS)], mask=veil)
        pen = ImageDraw.Draw(fine)
        for number, (line, run) in enumerate(zip(lines, runs, strict=True)):
            colour = COLOURS[number % len(COLOURS)]
            for piece in _pieces(run, line):
                places = [at(x, y) for x, y, *_ in piece]
                if len(places) > 1:
                    pen.line(places, fill=colour, width=2 * SMOOTH, joint="curve")
                if len(run) <= DOTS or len(places) == 1:
                    for across, down in places:
                        reach = 2.5 * SMOOTH
                        pen.ellipse((across - reach, down - reach, across + reach, down + reach), fill=colour)
        page.paste(fine.resize(part.size, Image.Resampling.BOX), box[:2])


def _check(lines: Sequence[Line], size: tuple[int, int]) -> None:
    if size[0] < 240 or size[1] < 160:
        raise TrainingError(
            "The chart",
            found=f"was asked for at {size[0]} x {size[1]} pixels",
            expected="240 x 160 at least were expected",
            remedy="make it larger",
        )
    for line in lines:
        lengths = [len(line.x), len(line.y), *(len(edge) for edge in line.band or ())]
        if len(set(lengths)) != 1:
            raise TrainingError(
                f"The chart's line '{line.name}'",
                found=f"has lists of {', '.join(map(str, lengths))} numbers",
                expected="one y for each x was expected, and for each edge of the band",
                remedy="give lists of one length",
            )


def _finite(line: Line, log_x: bool) -> list[_Point]:
    """The points that can be drawn."""
    edges = line.band or ()
    points = zip(line.x, line.y, *edges, strict=True)
    return [tuple(map(float, point)) for point in points if _drawn(point, log_x)]


def _drawn(point: Sequence[float], log_x: bool) -> bool:
    return all(math.isfinite(value) for value in point) and (point[0] > 0 or not log_x)


def _pieces(run: Sequence[_Point], line: Line) -> Iterator[list[_Point]]:
    """Stretches without a gap."""
    gaps = [x for x, y in zip(line.x, line.y, strict=True) if not math.isfinite(y)]
    piece: list[_Point] = []
    for point in run:
        if piece and any(piece[-1][0] < gap < point[0] for gap in gaps):
            yield piece
            piece = []
        piece.append(point)
    if piece:
        yield piece


def _legend(pen: ImageDraw.ImageDraw, names: Sequence[str], width: int, font: Font) -> int:
    """The lines' names in as many rows as they need; where the next thing may begin."""
    top, left = GAP + LARGE + 8, GAP
    if len(names) < 2:
        return top
    for number, name in enumerate(names):
        wide = 22 + round(font.getlength(name)) + 14
        if left > GAP and left + wide > width:
            top, left = top + 17, GAP
        pen.line((left, top + 8, left + 16, top + 8), fill=COLOURS[number % len(COLOURS)], width=3)
        pen.text((left + 22, top), name, fill=INK, font=font)
        left += wide
    return top + 21


def _mark(pen: ImageDraw.ImageDraw, frame: _Frame, mark: float, font: Font) -> None:
    across = frame.place(mark, 0)[0]
    for start in range(frame.top, frame.bottom, 8):
        pen.line((across, start, across, min(start + 4, frame.bottom)), fill=INK)
    label = _label(mark, (mark,))
    half = font.getlength(label) / 2 + 3
    middle = min(max(across, frame.left + half), frame.right - half)
    pen.rectangle((middle - half, frame.top - 17, middle + half, frame.top - 2), fill="white", outline=INK)
    pen.text((middle, frame.top - 10), label, fill=INK, font=font, anchor="mm")


def _step(reach: float) -> float:
    """The least of 1, 2, 5 times a power of ten that makes no more than TICKS steps."""
    power: float = 10.0 ** math.floor(math.log10(reach / TICKS))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power * TICKS >= reach * (1 - 1e-9))


def _log_ticks(low: float, high: float) -> tuple[float, ...]:
    for factors in ((1,), (1, 3), (1, 2, 5)):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        values = [factor * 10.0**power for power in powers for factor in factors]
        ticks = tuple(value for value in values if low * (1 - 1e-9) <= value <= high * (1 + 1e-9))
        if len(ticks) >= 3:
            return ticks[:: -(-len(ticks) // TICKS)]
    return ticks or (low, high)


def _label(value: float, ticks: Sequence[float]) -> str:
    """With as many places as tell the ticks apart; thousands set off, very small and large numbers as powers."""
    step = min((b - a for a, b in pairwise(ticks)), default=abs(value) / 1000 or 1.0)
    largest = max(map(abs, ticks))
    if largest >= 1e7 or largest < 1e-4:
        return f"{value:.3g}" if value else "0"
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    text = f"{value:,.{places}f}".replace(",", " ")
    return text.rstrip("0").rstrip(".") if "." in text and len(ticks) == 1 else text
