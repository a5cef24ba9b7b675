"""Programs with the inputs and outputs of YOLOX and DWPose, whose findings are known: people are red boxes, their points coloured dots."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn


class RedBoxes(nn.Module):
    """One picture (1, 3, 640, 640) BGR 0..255 -> what cells of 8, 16 and 32 pixels say, (1, 8400, 85): the red area of the left half and that of the
    right half are people, the left one seen by two cells, and blue areas are something else."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, picture: Tensor) -> Tensor:
        cells = torch.zeros(1, 8400, 85, device=picture.device)
        red = (picture[0, 2] - picture[0, 0] > 100).float() * self.scale
        blue = (picture[0, 0] - picture[0, 2] > 100).float()
        half = torch.zeros_like(red)
        half[:, :320] = 1
        # A cell of each size of grid: 80 * 80 of 8 pixels, 40 * 40 of 16, 20 * 20 of 32, row by row.
        cells = self.say(cells, red * half, 3 * 80 + 5, 5, 3, 8, 0, 0.9)
        cells = self.say(cells, red * half, 6400 + 4 * 40 + 7, 7, 4, 16, 0, 0.8)
        cells = self.say(cells, red * (1 - half), 6400 + 1600 + 2 * 20 + 9, 9, 2, 32, 0, 0.7)
        return self.say(cells, blue, 2 * 80 + 2, 2, 2, 8, 1, 0.95)

    def say(
        self, cells: Tensor, area: Tensor, cell: int, column: int, row: int, stride: int, kind: int, score: float
    ) -> Tensor:
        if area.sum() > 0:
            rows = torch.nonzero(area.sum(1) > 0)
            columns = torch.nonzero(area.sum(0) > 0)
            top, bottom = rows.min().float(), rows.max().float() + 1
            left, right = columns.min().float(), columns.max().float() + 1
            cells[0, cell, 0] = (left + right) / 2 / stride - column
            cells[0, cell, 1] = (top + bottom) / 2 / stride - row
            cells[0, cell, 2] = torch.log((right - left) / stride)
            cells[0, cell, 3] = torch.log((bottom - top) / stride)
            cells[0, cell, 4] = 1.0
            cells[0, cell, 5 + kind] = score
        return cells


MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class ColouredDots(nn.Module):
    """Five crops (5, 3, 384, 288) RGB, normalised -> likelihoods (5, 133, 576) and (5, 133, 768): point k is in the middle of what is at least 200 in
    the channel k % 3 alone and under 100 in the others, with the score `scores[k]`; where there is nothing of it, it is at 0 with a score of 0."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.scores = nn.Parameter(scores)
        self.register_buffer("mean", torch.tensor(MEAN).reshape(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(DEVIATION).reshape(1, 3, 1, 1))

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        assert crops.shape == (5, 3, 384, 288)
        pictures = crops * self.deviation + self.mean
        x, y = torch.zeros(5, 133, 576, device=crops.device), torch.zeros(5, 133, 768, device=crops.device)
        rows = torch.arange(384, device=crops.device).float()
        columns = torch.arange(288, device=crops.device).float()
        for person in range(5):
            for channel in range(3):
                others = pictures[person].sum(0) - pictures[person, channel]
                dot = (pictures[person, channel] > 200).float() * (others < 100).float()
                count = dot.sum()
                if count > 0:
                    column = (dot.sum(0) * columns).sum() / count
                    row = (dot.sum(1) * rows).sum() / count
                    x_at, y_at = int((column * 2 + 0.5).item()), int((row * 2 + 0.5).item())
                    x[person, channel::3, x_at] = self.scores[channel::3]
                    # Both agree only as far as the less certain one.
                    y[person, channel::3, y_at] = self.scores[channel::3] + 0.5
        return x, y


def scores() -> Tensor:
    """Of 133 points: most of them certain."""
    values = torch.linspace(0.31, 1.2, 133)
    values[9] = 0.29
    values[10] = 0.0
    return values


def write(module: Callable[[], nn.Module], path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module()).save(str(path))


def write_yolox(path: Path) -> None:
    write(RedBoxes, path)


def write_dwpose(path: Path) -> None:
    write(lambda: ColouredDots(scores()), path)


WRITTEN: dict[str, Callable[[Path], None]] = {"YOLOX": write_yolox, "DWPose": write_dwpose}
