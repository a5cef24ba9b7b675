"""What the loop tells of the steps done, and its table on disk."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from .objective import BUCKETS

NAME = "losses.csv"
HEAD = ("step", "loss", "rate", "gradient", *(f"loss {bucket}/{BUCKETS}" for bucket in range(1, BUCKETS + 1)))


@dataclass(frozen=True)
class StepLog:
    """The steps since the row before."""

    step: int
    """Steps done."""
    loss: float
    """Mean over the rows of these steps, as it was minimised (with its weights)."""
    rate: float
    gradient: float
    """Length of the last step's gradient before it was cut."""
    by_time: tuple[float | None, ...]
    """Mean squared errors (without weights) in equal parts of the schedule, least noise first; None where no row fell."""
    rows_per_second: float

    @classmethod
    def of(cls, step: int, window: Tensor, rate: float, gradient: float, rows_per_second: float) -> StepLog:
        """`window` as in `empty_window`."""
        loss, rows, *rest = window.tolist()
        sums, counts = rest[:BUCKETS], rest[BUCKETS:]
        by_time = tuple(total / count if count else None for total, count in zip(sums, counts, strict=True))
        return cls(step, loss / rows, rate, gradient, by_time, rows_per_second)

    def row(self) -> list[str]:
        by_time = ("" if value is None else f"{value:.6g}" for value in self.by_time)
        return [str(self.step), f"{self.loss:.9g}", f"{self.rate:.6g}", f"{self.gradient:.6g}", *by_time]


WINDOW = 2 + 2 * BUCKETS
"""Sum of losses, number of rows, sums by time, numbers by time."""


class Table:
    """`losses.csv`: one row for each StepLog."""

    def __init__(self, folder: Path, first: int) -> None:
        """Keeps of an older table the rows up to `first` steps, since those behind will come again."""
        self._path = folder / NAME
        rows = []
        if first and self._path.is_file():
            with self._path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.reader(file) if row and row[0].isdigit() and int(row[0]) <= first]
        folder.mkdir(parents=True, exist_ok=True)
        text = io.StringIO()
        csv.writer(text).writerows([HEAD, *rows])
        beside = self._path.with_suffix(".unfinished")
        beside.write_text(text.getvalue(), encoding="utf-8", newline="")
        os.replace(beside, self._path)

    def add(self, row: StepLog) -> None:
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(row.row())
