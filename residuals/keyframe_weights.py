"""Block weights in the way of Advanced-ControlNet: ladders and numbers that act on what a control has, whatever its number of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from .blocks import Block
from .weights import BlockWeights, BlockWeightsError, Flat

ADAPTER_POWERS = (7, 2, 1, 0)
"""Of the ladder of eight from which a T2I-Adapter's four features take theirs, the finest first."""


def is_adapter(blocks: Sequence[Block]) -> bool:
    """Whether these are the four features of a T2I-Adapter, of which that for SDXL has its last in the middle."""
    return len(blocks) == len(ADAPTER_POWERS) and all(block.place == "input" and not block.part for block in blocks[:3])


@dataclass(frozen=True)
class ScaledSoft(BlockWeights):
    """base^(n-i) for the encoder blocks i = 0 … n-1, and 1 for the middle; `flip` turns the ladder round."""

    base: float
    flip: bool = False

    def __str__(self) -> str:
        return f"scaled soft {self.base:g}{', flipped' if self.flip else ''}"

    def __call__(self, blocks: Sequence[Block]) -> tuple[float, ...]:
        return tuple(self.base**power for power in self.powers(blocks))

    def powers(self, blocks: Sequence[Block]) -> tuple[int, ...]:
        """How often the base is a factor of each block."""
        if is_adapter(blocks):
            return tuple(reversed(ADAPTER_POWERS)) if self.flip else ADAPTER_POWERS
        falling = range(len(blocks) - 1, -1, -1)
        if not any(block.place == "middle" for block in blocks):
            falling = range(len(blocks), 0, -1)  # the 1 is the middle's
        return tuple(reversed(falling)) if self.flip else tuple(falling)


@dataclass(frozen=True)
class NumberedWeights(BlockWeights):
    """One number per encoder block, the finest first, and one for the middle; blocks beyond the numbers keep 1, numbers beyond the blocks are idle."""

    outputs: tuple[float, ...]
    middle: float = 1.0

    def __str__(self) -> str:
        return f"outputs {', '.join(f'{value:g}' for value in self.outputs)}, middle {self.middle:g}"

    def __call__(self, blocks: Sequence[Block]) -> tuple[float, ...]:
        if is_adapter(blocks):
            raise BlockWeightsError(
                "weights for a ControlNet (output_0 to middle_0) are connected, but this control is a T2I-Adapter with four features; connect "
                "T2IAdapter weights."
            )
        encoder = [block for block in blocks if block.place != "middle"]
        numbers = dict(zip((id(block) for block in encoder), self.outputs, strict=False))
        return tuple(self.middle if block.place == "middle" else numbers.get(id(block), 1.0) for block in blocks)


@dataclass(frozen=True)
class FeatureWeights(BlockWeights):
    """One number for each of a T2I-Adapter's four features, the finest first."""

    features: tuple[float, ...]

    def __str__(self) -> str:
        return f"features {', '.join(f'{value:g}' for value in self.features)}"

    def __call__(self, blocks: Sequence[Block]) -> tuple[float, ...]:
        if not is_adapter(blocks):
            raise BlockWeightsError(
                f"weights for a T2I-Adapter (four numbers) are connected, but this control has {len(blocks)} blocks; connect ControlNet weights."
            )
        return self.features


@dataclass(frozen=True)
class MiddleTimes(BlockWeights):
    """A factor for the middle block only."""

    factor: float

    def __str__(self) -> str:
        return f"middle times {self.factor:g}"

    def __call__(self, blocks: Sequence[Block]) -> tuple[float, ...]:
        return tuple(self.factor if block.place == "middle" else 1.0 for block in blocks)


@dataclass(frozen=True)
class OnlyAt(BlockWeights):
    """The weights of one block alone, by its place in the control's order; the others get 0."""

    position: int

    def __str__(self) -> str:
        return f"block {self.position} only"

    def __call__(self, blocks: Sequence[Block]) -> tuple[float, ...]:
        return tuple(float(position == self.position) for position in range(len(blocks)))


@dataclass(frozen=True, eq=False)
class KeyframeWeights:
    """What a weights node of that pack says: factors per block, one for the unconditional branch, and a base of the ladder for each pixel.

    `base_mask` (N, H, W) takes the place of the ladder's base: block i of n is multiplied by its power n-i, pixel by pixel.
    """

    blocks: BlockWeights = field(default_factory=Flat)
    uncond_multiplier: float = 1.0
    base_mask: Tensor | None = None
