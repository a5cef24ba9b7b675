"""How long, how fast and on how much a control learns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from .errors import TrainingError

Precision = Literal["fp32", "bf16", "fp16"]
Optimiser = Literal["adamw", "adamw8bit"]


@dataclass(frozen=True)
class Settings:
    """Raises TrainingError for what cannot be."""

    steps: int
    batch: int
    """Rows of one step of the optimiser, over all processes and accumulated parts."""
    accumulation: int = 1
    """Parts in which each process computes its rows of a step, one after the other."""
    rate: float = 1e-5
    warm_up: int = 500
    decay: float = 0.0
    """Share of the steps, the last ones, over which the rate falls in a straight line to 1 %."""
    ema: float = 0.999
    """How much of the moving average stays at each step; 0 for none."""
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 1.0
    """Longest gradient; 0 for any."""
    precision: Precision = "fp32"
    checkpointing: bool = False
    """Whether the backward pass computes the insides of blocks anew: less memory, more time."""
    optimiser: Optimiser = "adamw"
    empty_prompts: float = 0.5
    """Share of the prompts that are left out (arXiv 2302.05543, 3.3)."""
    middle_times: float = 0.0
    """Share of the rows whose time is drawn from the middle of the schedule, where shapes form, in place of evenly (see `draws.draw`)."""
    min_snr: float | None = None
    """γ of min-SNR weights (arXiv 2303.09556: 5)."""
    seed: int = 0
    save_every: int = 1000
    validate_every: int = 500
    """0 for never."""
    log_every: int = 50

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulation", "save_every", "log_every"):
            self._check(name, "a whole number from 1", _whole(getattr(self, name)) and getattr(self, name) >= 1)
        for name in ("warm_up", "validate_every", "seed"):
            self._check(name, "a whole number from 0", _whole(getattr(self, name)) and getattr(self, name) >= 0)
        self._check("seed", "a whole number below 2^63", self.seed < 2**63)
        for name in ("weight_decay", "clip"):
            self._check(name, "a number from 0", math.isfinite(getattr(self, name)) and getattr(self, name) >= 0)
        self._check("rate", "a number above 0", math.isfinite(self.rate) and self.rate > 0)
        for name in ("decay", "empty_prompts", "middle_times"):
            self._check(name, "a share from 0 to 1", 0 <= getattr(self, name) <= 1)
        self._check("ema", "a number from 0 to below 1", 0 <= self.ema < 1)
        self._check(
            "betas", "two numbers from 0 to below 1", len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        )
        self._check("min_snr", "a number above 0, or none", self.min_snr is None or self.min_snr > 0)
        self._check("precision", "fp32, bf16 or fp16", self.precision in ("fp32", "bf16", "fp16"))
        self._check("optimiser", "adamw or adamw8bit", self.optimiser in ("adamw", "adamw8bit"))

    def rate_at(self, step: int) -> float:
        """Learning rate of step number `step`: warm-up, a plateau, the decay (arXiv 2405.18392)."""
        warm = min(1.0, (step + 1) / self.warm_up) if self.warm_up else 1.0
        last = self.decay * self.steps
        return self.rate * min(warm, max(0.01, (self.steps - step) / last) if last else 1.0)

    def part(self, processes: int) -> int:
        """Rows that one process computes at a time."""
        parts = processes * self.accumulation
        if self.batch % parts:
            raise TrainingError(
                "The batch",
                found=f"has {self.batch} rows",
                expected=f"a multiple of {parts} was expected, since {processes} processes each take it in {self.accumulation} parts",
                remedy=f"use {math.ceil(self.batch / parts) * parts} rows or another accumulation",
            )
        return self.batch // parts

    def _check(self, name: str, expected: str, holds: bool) -> None:
        if not holds:
            raise TrainingError(
                f"The setting '{name}'",
                found=f"is {getattr(self, name)!r}",
                expected=f"{expected} was expected",
                remedy="change it",
            )


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
