"""What the training loop reads: rows of prepared data, as tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """Some rows of one size, on any device."""

    latent: Tensor
    """(B, 4, h, w), as the UNet sees it: already multiplied by the latent format's factor."""
    context: Tensor
    """(B, tokens, width): the text."""
    y: Tensor | None
    """(B, width): SDXL's pooled text and sizes; None for bases without."""
    hint: Tensor
    """(B, C, 8h, 8w): uint8 0..255, or floating point 0..1."""


@dataclass(frozen=True, eq=False)
class EmptyPrompt:
    """What stands in for the text of a row whose prompt is dropped."""

    context: Tensor
    """(1, tokens, width)."""
    pooled: Tensor | None
    """(1, width): takes the place of the first `width` numbers of y (SDXL: 1280; the sizes behind them stay); None for bases without."""


class Data(Protocol):
    """Prepared pictures, texts and hints, by row number."""

    def __len__(self) -> int: ...

    @property
    def empty(self) -> EmptyPrompt: ...

    @property
    def groups(self) -> Tensor:
        """(rows,) int64: only rows with the same number have pictures of one size and can be read together."""
        ...

    def batch(self, rows: Tensor) -> Batch:
        """The rows with these numbers, (B,) int64, all of one group."""
        ...
