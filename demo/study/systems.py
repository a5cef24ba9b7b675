"""What is compared: ways to bring a hint into the demo world's UNet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

Velocity = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(x (B, 4, 16, 16), times (B,) float, context (B, 24, 64), hint (B, 3, 128, 128) in 0..1) -> v (B, 4, 16, 16) float32."""
System = Literal["ControlNet", "Gaussian start", "ControlNet-lite", "concatenation", "no control"]
SYSTEMS: tuple[System, ...] = get_args(System)


@dataclass(frozen=True)
class Run:
    """One system, trained once. "no control" is the UNet as it is: its seeds differ in the noise of the pictures alone."""

    system: System
    seed: int
    pictures: int = 10_000
    """How many it learns from."""

    @property
    def name(self) -> str:
        return f"{self.system} {self.pictures} {self.seed}".replace(" ", "_").lower()
