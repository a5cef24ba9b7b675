"""Whether a difference between systems is more than what seeds make."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

Verdict = Literal["agrees", "disagrees", "not decided"]
BySeed = Mapping[int, float]

# Two-sided 95 % of Student's t, by degrees of freedom.
_T = (math.inf, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over seeds (NaN of fewer than two)."""

    mean: float
    deviation: float
    count: int

    @classmethod
    def of(cls, values: BySeed) -> Spread:
        found = list(values.values())
        return cls(fmean(found), stdev(found) if len(found) > 1 else math.nan, len(found))

    def told(self, places: int = 3) -> str:
        mean = f"{self.mean:.{places}f}"
        return mean if math.isnan(self.deviation) else f"{mean} ± {self.deviation:.{places}f}"


@dataclass(frozen=True)
class Difference:
    """Of two systems by seed: seeds share scenes and noise, so they are compared in pairs."""

    mean: float
    margin: float
    """Half of its 95 % confidence interval (Student's t); infinite for a single seed."""

    @classmethod
    def between(cls, first: BySeed, second: BySeed) -> Difference:
        """First minus second, of the seeds that both have; ValueError where there is none."""
        each = [first[seed] - second[seed] for seed in first.keys() & second.keys()]
        if not each:
            raise ValueError(
                f"seeds {sorted(first)} and {sorted(second)} have none in common, but one at least was expected; measure both."
            )
        count = len(each)
        if count < 2:
            return cls(each[0], math.inf)
        return cls(fmean(each), _T[min(count - 1, len(_T) - 1)] * stdev(each) / math.sqrt(count))

    @property
    def sign(self) -> int:
        """1 or -1 where the difference is more than its margin, else 0."""
        return 0 if abs(self.mean) <= self.margin else (1 if self.mean > 0 else -1)

    def told(self, places: int = 3) -> str:
        margin = "one seed" if math.isinf(self.margin) else f"± {self.margin:.{places}f}"
        return f"{self.mean:+.{places}f} ({margin})"


def ordered(difference: Difference) -> Verdict:
    """Of a claim that the first is larger."""
    return {1: "agrees", -1: "disagrees", 0: "not decided"}[difference.sign]  # type: ignore[return-value]


def alike(difference: Difference, tolerance: float) -> Verdict:
    """Of a claim that both are the same: agrees where the whole interval lies within the tolerance, disagrees where it lies outside."""
    if abs(difference.mean) + difference.margin <= tolerance:
        return "agrees"
    return "disagrees" if abs(difference.mean) - difference.margin > tolerance else "not decided"


def no_lower(difference: Difference, tolerance: float) -> Verdict:
    """Of a claim that the first is not lower by more than the tolerance."""
    if difference.mean - difference.margin >= -tolerance:
        return "agrees"
    return "disagrees" if difference.mean + difference.margin < -tolerance else "not decided"


def together(*verdicts: Verdict) -> Verdict:
    """Of a claim that is several at once: agrees where all do, disagrees where one does."""
    if "disagrees" in verdicts:
        return "disagrees"
    return "agrees" if all(verdict == "agrees" for verdict in verdicts) else "not decided"
