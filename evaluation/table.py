"""Fidelity in words: a table of all numbers, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .fidelity import Fidelity

NOTHING = "-"
"""In place of a number where nothing could be compared."""


@dataclass(frozen=True)
class Meaning:
    unit: str
    higher_is_better: bool
    digits: int = 3


SHARE = Meaning("0 to 1", True)
ANGLE = Meaning("degrees, 0 to 180", False, 2)
DELTA_E = Meaning("CIEDE2000: 1 can just be seen, black to white is 100", False, 2)
MEANINGS: Mapping[str, Meaning] = {
    "F1": SHARE,
    "precision": SHARE,
    "recall": SHARE,
    "F1 of similarities": SHARE,
    "SSIM": Meaning("-1 to 1", True),
    "mean difference": Meaning("0 to 1", False),
    "mean IoU": SHARE,
    "IoU of black": SHARE,
    "IoU of white": SHARE,
    "pixel accuracy": SHARE,
    "scale-invariant RMSE": Meaning("of the depth's logarithm: 0.1 is about 10 %", False),
    "share within 1.25": SHARE,
    "mean angle": ANGLE,
    "median angle": ANGLE,
    "share below 11.25": SHARE,
    "share below 22.5": SHARE,
    "share below 30": SHARE,
    "mean ΔE": DELTA_E,
    "largest ΔE": DELTA_E,
}
"""By name of a number in `Fidelity.numbers`."""


def joined(parts: Sequence[Fidelity]) -> Fidelity:
    """The pictures of several of one measure, one after the other."""
    first = parts[0]
    numbers = {name: torch.cat([part.numbers[name] for part in parts]) for name in first.numbers}
    absent = [torch.full_like(part.score, torch.nan) for part in parts]
    names = dict.fromkeys(name for part in parts for name in part.each_class)
    classes = {
        name: torch.cat([part.each_class.get(name, nothing) for part, nothing in zip(parts, absent, strict=True)])
        for name in names
    }
    return Fidelity(first.name, next(iter(numbers.values())), numbers, first.higher_is_better, classes)


def mean_of(values: Tensor) -> float:
    """Of (B) float, over the pictures where something could be compared; NaN where there is none."""
    return float(values.nanmean())


def summary(score: Fidelity) -> str:
    """The mean score in one line."""
    name = next(iter(score.numbers))
    compared = int((~score.score.isnan()).sum())
    of_all = (
        "" if compared == len(score.score) else f"; nothing could be compared in {len(score.score) - compared} more"
    )
    return (
        f"{name} {_number(mean_of(score.score), name)} ({_better(MEANINGS[name])}; {MEANINGS[name].unit}), "
        f"mean of {compared} picture{'' if compared == 1 else 's'}{of_all}"
    )


def table(score: Fidelity, title: str) -> str:
    """A line for each picture and one for their mean, in columns under the names of the numbers, below them what the numbers mean."""
    rows = [["picture", *score.numbers]]
    for picture in range(len(score.score)):
        rows.append(
            [str(picture + 1), *(_number(float(values[picture]), name) for name, values in score.numbers.items())]
        )
    rows.append(["mean", *(_number(mean_of(values), name) for name, values in score.numbers.items())])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "\n".join([f"{title}: {score.name}, {_direction(score)}", *lines, *_legend(score), *_classes(score)])


def _classes(score: Fidelity) -> list[str]:
    if not score.each_class:
        return []
    width = max(map(len, score.each_class))
    lines = [f"{name.ljust(width)}  {mean_of(values):.3f}" for name, values in score.each_class.items()]
    return ["IoU of each class, mean of the pictures where it is asked for or found:", *lines]


def _legend(score: Fidelity) -> list[str]:
    by_meaning: dict[Meaning, list[str]] = {}
    for name in score.numbers:
        by_meaning.setdefault(MEANINGS[name], []).append(name)
    lines = [f"{', '.join(names)}: {meaning.unit}, {_better(meaning)}" for meaning, names in by_meaning.items()]
    if any(bool(values.isnan().any()) for values in score.numbers.values()):
        lines.append(f"{NOTHING}: nothing could be compared; the mean is of the other pictures")
    return lines


def _direction(score: Fidelity) -> str:
    return "higher is better" if score.higher_is_better else "lower is better"


def _better(meaning: Meaning) -> str:
    return "higher is better" if meaning.higher_is_better else "lower is better"


def _number(value: float, name: str) -> str:
    return NOTHING if value != value else f"{value:.{MEANINGS[name].digits}f}"
