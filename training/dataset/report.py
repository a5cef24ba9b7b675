"""What a set of examples is, in words."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .dataset import ConditionDataset

LISTED = 100
"""Problems told one by one."""
BARELY = 1.02
"""Nobody sees that something was enlarged by less."""
SIDES = re.compile(r"\b(left|right)\b", re.IGNORECASE)


def report(dataset: ConditionDataset) -> str:
    """One fact a line; the problems last."""
    settings = dataset.settings
    lines = [f"{_many(len(dataset), 'row')} of {_many(len(dataset.examples), 'picture')}" + _ways(dataset)]
    if dataset.condition:
        told = ", ".join(f"{name} {value}" for name, value in dataset.parameters.items())
        lines.append(f"hints: made by {dataset.condition}" + (f" ({told})" if told else ""))
    else:
        lines.append(f"hints: those of the set, as {settings.hint_kind}")
    rows = Counter(dataset.groups.tolist())
    lines += [
        f"{size.width} x {size.height} pixels: {_many(rows[group], 'row')}" for group, size in enumerate(dataset.sizes)
    ]
    lines += _looks(dataset)
    if dataset.problems:
        lines.append(f"left out: {len(dataset.problems)}")
        lines += [f"  {problem.name}: {problem.what}" for problem in dataset.problems[:LISTED]]
        if len(dataset.problems) > LISTED:
            lines.append(f"  and {len(dataset.problems) - LISTED} more")
    else:
        lines.append("left out: none")
    return "\n".join(lines)


def _ways(dataset: ConditionDataset) -> str:
    settings = dataset.settings
    ways = [f"{settings.crops} crops"] * (settings.crops > 1) + ["mirrored too"] * settings.flip
    return f" ({', '.join(ways)})" if ways else ""


def _looks(dataset: ConditionDataset) -> list[str]:
    """What is no fault and yet worth a look."""
    lines = []
    missing = len(dataset.examples) * dataset.settings.crops * (1 + dataset.settings.flip) - len(dataset)
    if missing:
        lines.append(
            f"{_many(missing, 'row')} fewer than crops ask for: they would show the same part again, or enlarge it"
        )
    enlarged: dict[int, float] = {}
    for number, cut in dataset.cuts:
        enlarged[number] = max(enlarged.get(number, 0.0), cut.enlarged)
    small = {number: factor for number, factor in enlarged.items() if factor > BARELY}
    if small:
        worst = max(small, key=lambda number: small[number])
        lines.append(
            f"{_many(len(small), 'picture')} enlarged, which blurs: most of all {dataset.examples[worst].name}, {small[worst]:.1f} times"
        )
    empty = sum(not example.caption.strip() for example in dataset.examples)
    if empty:
        lines.append(f"{_many(empty, 'caption')} empty")
    sides = sum(bool(SIDES.search(example.caption)) for example in dataset.examples)
    if sides and dataset.settings.flip:
        lines.append(f"{_many(sides, 'caption')} with 'left' or 'right', which mirrored pictures make wrong")
    return lines


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count != 1 else ''}"
