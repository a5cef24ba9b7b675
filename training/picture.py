"""A training at a glance: losses, scores and the last validation in one picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .chart import FAINT, GAP, INK, SMALL, Line, chart
from .convergence import sudden_step
from .losses import NAME
from .validation import Drawn, read_rows, read_scores

WIDTH, HEIGHT = 640, 280
POINTS = 200
"""A longer curve is shown as the means of so many stretches."""
SMOOTHED = 20
"""Stretches that the running mean looks back on."""
TALLEST = 160


def charts(folder: Path, title: str, higher_is_better: bool = True) -> Image.Image:
    """The loss over the steps, and the score where there is one, of the training in `folder`; RGB, 640 wide."""
    steps, losses = thinned(*read_losses(folder))
    lines = [Line("loss", steps, losses)]
    # Of fewer points it would lag behind without being smoother.
    if len(losses) >= 3 * SMOOTHED:
        lines.append(Line("running mean", steps, running_mean(losses)))
    drawn = [chart(lines, title=title, x_name="step", y_name="loss", size=(WIDTH, HEIGHT))]
    at, scores = read_scores(folder)
    if at:
        sudden = sudden_step(at, scores, higher_is_better)
        told = "" if sudden is None else f": sudden at step {sudden}"
        name = read_rows(folder)[-1].measure
        better = "higher" if higher_is_better else "lower"
        drawn.append(
            chart(
                [Line(name, at, scores)],
                title=f"How well the validation pictures obey{told}",
                x_name="step",
                y_name=f"{name} ({better} is better)",
                size=(WIDTH, HEIGHT),
                mark=sudden,
            )
        )
    return below_each_other(drawn)


def live(folder: Path, title: str, status: str, drawn: Drawn | None, higher_is_better: bool = True) -> Image.Image:
    """What the page shows while it trains."""
    parts = [_line(status), charts(folder, title, higher_is_better)]
    if drawn is not None:
        parts.append(validation_strip(drawn))
    return below_each_other(parts)


def validation_strip(drawn: Drawn, width: int = WIDTH) -> Image.Image:
    """Hints in one row, the pictures drawn from them below, each made smaller to fit into `width`."""
    count = len(drawn.hints)
    height, across = drawn.hints.shape[1:3]
    scale = min((width - GAP) / count / (across + GAP), TALLEST / height, 4.0)
    cell = (max(1, round(across * scale)), max(1, round(height * scale)))
    top = GAP + SMALL + 8
    page = Image.new("RGB", (width, top + 2 * (cell[1] + GAP)), "white")
    score = "" if drawn.score is None else f", {drawn.measure}: {drawn.score:.3g}"
    ImageDraw.Draw(page).text(
        (GAP, GAP - 4), f"Validation after step {drawn.step}{score}", fill=INK, font=ImageFont.load_default(SMALL)
    )
    way = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
    for row, batch in enumerate((drawn.hints, drawn.pictures)):
        for column, picture in enumerate((batch.clamp(0, 1) * 255).round().byte().numpy()):
            image = Image.fromarray(np.ascontiguousarray(picture)).resize(cell, way)
            page.paste(image, (GAP + column * (cell[0] + GAP), top + row * (cell[1] + GAP)))
    return page


def below_each_other(parts: Sequence[Image.Image]) -> Image.Image:
    page = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        page.paste(part, (0, top))
        top += part.height
    return page


def read_losses(folder: Path) -> tuple[list[int], list[float]]:
    """Steps and losses of the table in `folder`; empty where there is none."""
    try:
        with (folder / NAME).open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if len(row) > 1 and row[0].isdigit()]
    except FileNotFoundError:
        return [], []
    return [int(row[0]) for row in rows], [float(row[1]) for row in rows]


def thinned(steps: Sequence[int], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Means of POINTS stretches; the same where there are no more."""
    if len(steps) <= POINTS:
        return [float(step) for step in steps], list(values)
    parts = [np.array_split(np.asarray(column, dtype=float), POINTS) for column in (steps, values)]
    means = [[float(part.mean()) for part in column] for column in parts]
    return means[0], means[1]


def running_mean(values: Sequence[float]) -> list[float]:
    """Of each value and those up to SMOOTHED - 1 before it."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(sums))
    starts = np.maximum(0, ends - SMOOTHED)
    means: list[float] = ((sums[ends] - sums[starts]) / (ends - starts)).tolist()
    return means


def _line(text: str) -> Image.Image:
    font = ImageFont.load_default(SMALL)
    strip = Image.new("RGB", (WIDTH, SMALL + 12), "white")
    ImageDraw.Draw(strip).text((GAP, 8), text, fill=FAINT, font=font)
    return strip
