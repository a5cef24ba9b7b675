"""Residuals: one tensor or None per block, in the order of the host's lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from .blocks import Block, Place

PLACES: tuple[Place, ...] = ("input", "output", "middle")


class ResidualShapeError(ValueError):
    """A residual does not fit the block that should receive it."""


@dataclass(frozen=True, eq=False)
class Residuals:
    """What a control adds to the UNet. Every operation returns new tensors and leaves these as they are.

    Each tuple is in the order of the host's list of that name. The UNet takes from the end of a list, so "output" holds the first encoder
    block first and "input" the last one first.
    """

    output: tuple[Tensor | None, ...] = ()
    middle: tuple[Tensor | None, ...] = ()
    input: tuple[Tensor | None, ...] = ()

    @classmethod
    def from_host(cls, control: Mapping[str, Sequence[Tensor | None]]) -> Residuals:
        """From the dict of lists that a host's control returns."""
        return cls(
            output=tuple(control.get("output", ())),
            middle=tuple(control.get("middle", ())),
            input=tuple(control.get("input", ())),
        )

    def to_host(self) -> dict[str, list[Tensor | None]]:
        """Fresh lists, because the UNet empties those it gets."""
        return {"input": list(self.input), "middle": list(self.middle), "output": list(self.output)}

    def items(self) -> Iterator[tuple[Place, int, Tensor | None]]:
        """Place, position and tensor of each residual: input, output, middle."""
        for place in PLACES:
            for index, residual in enumerate(getattr(self, place)):
                yield place, index, residual
