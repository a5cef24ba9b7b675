"""Block weights: one multiplier per block, a pure function of the blocks. They multiply when combined."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from .blocks import NOMINAL_LATENT, Block

Form = Literal["normalised", "literal"]
Size = Literal["actual", "nominal"]


class BlockWeights(ABC):
    """A multiplier for each of a control's blocks."""

    @abstractmethod
    def __call__(self, blocks: Sequence[Block]) -> tuple[float, ...]:
        """One finite factor per block, in the order of `blocks`."""

    def __mul__(self, other: BlockWeights) -> BlockWeights:
        return Product((self, other))


@dataclass(frozen=True)
class Flat(BlockWeights):
    """The same factor for every block."""

    value: float = 1.0

    def __call__(self, blocks: Sequence[Block]) -> tuple[float, ...]:
        return (self.value,) * len(blocks)


@dataclass(frozen=True)
class Product(BlockWeights):
    """Several weights multiplied block by block."""

    parts: tuple[BlockWeights, ...]

    def __call__(self, blocks: Sequence[Block]) -> tuple[float, ...]:
        return tuple(math.prod(factors) for factors in zip(*(part(blocks) for part in self.parts), strict=True))


@dataclass(frozen=True)
class ResolutionWeights(BlockWeights):
    """CFG resolution weighting: w = reference / h for a block of h × h latent cells.

    Section 3.4 of "Adding Conditional Control to Text-to-Image Diffusion Models" (arXiv 2302.05543) gives w = 64 / h, which is *literal*
    with the reference 64: 1, 2, 4, 8 from the finest level of SD1 at 512×512 to the coarsest. The paper calls the weights a reduction, so
    *normalised* divides them by the largest: 0.125, 0.25, 0.5, 1; the reference cancels there.

    *nominal* takes h from the level alone (64, 32, 16, 8), so a picture of any size gets the same weights. *actual* takes the block's own
    size; for a block that is not square h is sqrt(height · width), the side of the square of equal area, so turning a picture by a quarter
    changes nothing and a weight depends on the number of cells only.
    """

    form: Form = "normalised"
    size: Size = "nominal"
    reference: float = float(NOMINAL_LATENT)

    def __post_init__(self) -> None:
        if self.form not in get_args(Form) or self.size not in get_args(Size):
            raise ValueError(
                f"Resolution Weights got form {self.form!r} and size {self.size!r}, but form is one of {get_args(Form)} and size "
                f"one of {get_args(Size)}; choose from these."
            )
        if not (math.isfinite(self.reference) and self.reference > 0):
            raise ValueError(
                f"Resolution Weights got the reference {self.reference}, but it divides by block sizes and must be a positive number; "
                "use 64, the latent size of a 512-pixel picture."
            )

    def __call__(self, blocks: Sequence[Block]) -> tuple[float, ...]:
        if not blocks:
            return ()
        sizes = [block.actual_size if self.size == "actual" else block.nominal_size for block in blocks]
        numerator = min(sizes) if self.form == "normalised" else self.reference
        return tuple(numerator / size for size in sizes)
