"""Block weights: one multiplier per block, a pure function of the blocks. They multiply when combined."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from .blocks import NOMINAL_LATENT, Block

Form = Literal["normalised", "literal"]
Size = Literal["actual", "nominal"]
Ladder = Literal["power", "logspace"]

SOFT_BASE = 0.825
"""Base of the ladder in the guess mode of lllyasviel/ControlNet, whose author calls it a magic number."""


class BlockWeightsError(ValueError):
    """Block weights and the control that they should weigh do not go together."""


class BlockWeights(ABC):
    """A multiplier for each of a control's blocks."""

    @abstractmethod
    def __call__(self, blocks: Sequence[Block]) -> tuple[float, ...]:
        """One finite factor per block, in the order of `blocks`.

        `blocks` are all that the control feeds, and no others, in the order in which the model passes them: the finest encoder block first,
        the middle last.
        """

    def __mul__(self, other: BlockWeights) -> BlockWeights:
        return Product((self, other))


@dataclass(frozen=True)
class Flat(BlockWeights):
    """The same factor for every block."""

    value: float = 1.0

    def __str__(self) -> str:
        return f"flat {self.value:g}"

    def __call__(self, blocks: Sequence[Block]) -> tuple[float, ...]:
        return (self.value,) * len(blocks)


@dataclass(frozen=True)
class Product(BlockWeights):
    """Several weights multiplied block by block."""

    parts: tuple[BlockWeights, ...]

    def __str__(self) -> str:
        return " × ".join(str(part) for part in self.parts)

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

    def __str__(self) -> str:
        return f"{self.reference:g}/h, {self.form}, {self.size} size"

    def __call__(self, blocks: Sequence[Block]) -> tuple[float, ...]:
        if not blocks:
            return ()
        sizes = [block.actual_size if self.size == "actual" else block.nominal_size for block in blocks]
        numerator = min(sizes) if self.form == "normalised" else self.reference
        return tuple(numerator / size for size in sizes)


@dataclass(frozen=True)
class SoftWeights(BlockWeights):
    """A ladder that ends with 1 at the control's last block, so that a control yields to the words first in what is fine.

    *power* is w_i = base^(n-i) for the encoder residuals i = 0 … n-1, and 1 for the middle, which is i = n: the guess mode of
    lllyasviel/ControlNet (n = 12), "My prompt is more important" of sd-webui-controlnet and ScaledSoft of Advanced-ControlNet. n follows from the
    control's own blocks: 12 for SD1, 9 for SDXL, 3 for the four places of a T2I-Adapter, whose last one gets the 1.

    *logspace* is the guess mode of diffusers, `logspace(-1, 0, n + 1)`: from 0.1 to 1 for any n; the base has no meaning there.
    """

    base: float = SOFT_BASE
    ladder: Ladder = "power"

    def __post_init__(self) -> None:
        if self.ladder not in get_args(Ladder):
            raise ValueError(
                f"Soft Weights got the ladder {self.ladder!r}, but it is one of {get_args(Ladder)}; choose from these."
            )
        if not (math.isfinite(self.base) and self.base >= 0):
            raise ValueError(
                f"Soft Weights got the base {self.base}, but powers of it are weights and it must be a number of at least 0; use {SOFT_BASE}."
            )

    def __str__(self) -> str:
        return f"soft {self.base:g}" if self.ladder == "power" else "soft logspace"

    def __call__(self, blocks: Sequence[Block]) -> tuple[float, ...]:
        if self.ladder == "logspace":
            return tuple(np.logspace(-1, 0, len(blocks)).tolist())
        return tuple(self.base**power for power in reversed(range(len(blocks))))


@dataclass(frozen=True)
class LevelWeights(BlockWeights):
    """One number per resolution level, the finest first, and one for the middle block.

    A number for a level that the control does not feed has nothing to act on; a block on a level without a number is refused.
    """

    levels: tuple[float, ...]
    middle: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (
            *((f"level {level}", value) for level, value in enumerate(self.levels)),
            ("middle", self.middle),
        ):
            if not math.isfinite(value):
                raise ValueError(
                    f"Level Weights got {value} for {name}, but a finite number was expected; type one, for example 1."
                )

    def __str__(self) -> str:
        return f"levels {', '.join(f'{value:g}' for value in self.levels)}, middle {self.middle:g}"

    def __call__(self, blocks: Sequence[Block]) -> tuple[float, ...]:
        deepest = max((block.level for block in blocks if block.place != "middle"), default=-1)
        if deepest >= len(self.levels):
            raise BlockWeightsError(
                f"Level Weights has numbers for {len(self.levels)} levels, but this control has blocks on {deepest + 1}; "
                "use Block Weights, which takes one number per block."
            )
        return tuple(self.middle if block.place == "middle" else self.levels[block.level] for block in blocks)
