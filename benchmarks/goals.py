"""What a controlled step was to cost, and whether it did."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

ROUNDS = 20
"""Steps that a median is to be of."""
NO_WORSE = 1.01
"""Of the stock nodes' step: two runs of the same differ by that much."""
MEMORY = 1.1
"""Of the stock nodes' peak beside the weights, at most."""


@dataclass(frozen=True)
class Goal:
    """`most` is a ratio over the step without control; None: no worse than the stock nodes'. Whole runs count where steps differ."""

    words: str
    pixels: int
    batch: int
    names: tuple[str, ...]
    most: float | None
    width: str = "sd15"
    device: str = "cuda"
    dtype: str = "float16"
    whole: bool = False


def either(*names: str) -> tuple[str, ...]:
    """Each in line and beside the model."""
    return tuple(f"{name}{end}" for name in names for end in ("", "-beside"))


GOALS = (
    Goal("SD1.5 512, batch 1, one layer, exact", 512, 1, either("ours-1"), 1.05),
    Goal("SD1.5 512, batch 1, three layers, exact", 512, 1, either("ours-3", "ours-3-networks"), 1.15),
    Goal("SDXL 1024, batch 1, one layer, exact", 1024, 1, either("ours-1"), 1.15, width="sdxl"),
    Goal("SD1.5 512, batch 16, one layer, exact", 512, 16, either("ours-1"), None),
    Goal("SD1.5 512, batch 16, one layer, cond-only", 512, 16, either("ours-cond-only"), 1.18),
    Goal("SD1.5 512, batch 16, one layer, reuse 2", 512, 16, either("ours-every-2"), 1.18, whole=True),
    Goal("CPU, SD1.5 512, one layer, exact", 512, 1, ("ours-1",), 1.34, device="cpu", dtype="float32"),
    Goal("CPU, SD1.5 512, one layer, cond-only", 512, 1, ("ours-cond-only",), 1.19, device="cpu", dtype="float32"),
    Goal(
        "CPU, SD1.5 512, one layer, reuse 2",
        512,
        1,
        ("ours-every-2",),
        1.19,
        device="cpu",
        dtype="float32",
        whole=True,
    ),
)


@dataclass(frozen=True)
class Answer:
    """What one variant has to do with a goal; `reached` is None where nothing was measured that answers it."""

    words: str
    goal: str
    found: str
    reached: bool | None


def answers(report: dict[str, Any]) -> Iterator[Answer]:
    """Each goal once for each variant that ran, then what must hold of all: the stock nodes' prediction, and hardly more memory."""
    for goal in GOALS:
        yield from answers_to(goal, report)
    for size in report["sizes"]:
        rows = {row["name"]: row for row in size["variants"]}
        where = f"{report['width']} {size['pixels']}, batch {size['batch']}, {report['device']} {report['dtype']}"
        for row in rows.values():
            stock = rows.get((row["added"] or {}).get("beside"))
            if not row["name"].startswith("ours-") or stock is None:
                continue
            words = f"{where}: {row['name']}"
            if row["differs"] is not None:
                yield Answer(words, "predicts what the stock predicts", f"{row['differs']:.1e}", row["differs"] == 0)
                share = row["memory"]["peak"] / stock["memory"]["peak"]
                yield Answer(words, f"peak ≤ {MEMORY:.2f} of the stock's", f"{share:.3f}", share <= MEMORY)


def answers_to(goal: Goal, report: dict[str, Any]) -> Iterator[Answer]:
    limit = "no worse than stock" if goal.most is None else f"≤ {goal.most:.2f}"
    sizes = [size for size in report["sizes"] if (size["pixels"], size["batch"]) == (goal.pixels, goal.batch)]
    same = all(report[name] == getattr(goal, name) for name in ("width", "device", "dtype"))
    rows = {row["name"]: row for row in sizes[0]["variants"]} if sizes and same else {}
    there = [rows[name] for name in goal.names if name in rows]
    if not there:
        yield Answer(goal.words, limit, "not measured here", None)
    for row in there:
        stock = rows.get((row["added"] or {}).get("beside"))
        found = row["run"] if goal.whole else row["ratio"]["median"]
        told = f"{row['name']} {found:.3f}"
        if not goal.whole:
            told += f" [{row['ratio']['least']:.2f}..{row['ratio']['most']:.2f}]"
        reached: bool | None = goal.most is not None and found <= goal.most
        if stock is not None:
            told += f", {stock['name']} {stock['ratio']['median']:.3f}"
        if goal.most is None:
            reached = None
            if stock is not None:
                pairs = zip(row["seconds"], stock["seconds"], strict=True)
                share = statistics.median(mine / theirs for mine, theirs in pairs)
                told += f", {share:.3f} of its step"
                reached = share <= NO_WORSE
        if report["rounds"] < ROUNDS:
            told += f" ({report['rounds']} rounds of {ROUNDS})"
            reached = None
        yield Answer(goal.words, limit, told, reached)


WORDS = {True: "reached", False: "NOT REACHED", None: "open"}


def show_goals(report: dict[str, Any]) -> None:
    """A line for each answer."""
    print(f"\ngoals ({report['hardware']}, medians of {report['rounds']} rounds)")
    for one in answers(report):
        print(f"{WORDS[one.reached]:13}{one.words:58}{one.goal:34}{one.found}")
