"""Reuse: which steps evaluate a layer's network, by choice; at the others it adds what it gave before."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .errors import ControlError


@dataclass(frozen=True)
class Reuse:
    """When a network is evaluated again. The first and the last step of a run, and of a layer's range, always are.

    `every` counts the sampler's steps: at 2 each second one is evaluated. `ratio` compares noise: at 1.5 it is evaluated again when sigma has
    fallen, or risen, by a factor of 1.5; 1 switches that off. With both, whichever comes first. `extrapolate` continues the way from the
    evaluation before the last, linearly in log sigma, in place of holding the last one. Raises ControlError.
    """

    every: int = 1
    ratio: float = 1.0
    extrapolate: bool = False

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ControlError(
                f"every is {self.every}, but a number of steps from 1 was expected; 1 evaluates at each step."
            )
        if not (math.isfinite(self.ratio) and self.ratio >= 1.0):
            raise ControlError(
                f"sigma_ratio is {self.ratio:g}, but a factor from 1 was expected; 1 evaluates at each step."
            )

    @property
    def never(self) -> bool:
        """Whether every step is evaluated."""
        return self.every == 1 and self.ratio == 1.0

    def __str__(self) -> str:
        words = [f"every {self.every} steps"] if self.every > 1 else []
        words += [f"sigma ratio {self.ratio:g}"] if self.ratio > 1 else []
        return " or ".join(words) + (", extrapolated" if self.extrapolate else "") if words else ""
