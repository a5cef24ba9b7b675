"""What is known of a tensor before its data is read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class TensorInfo:
    """Name in the file, shape and dtype of one stored tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize


class Fetch(Protocol):
    """Reads tensors, by their names in the file, onto the CPU."""

    def __call__(self, names: Iterable[str], mapped: bool = True) -> dict[str, Tensor]:
        """Mapped where the format allows it, so that nothing is copied, or else in memory of their own.

        A mapped tensor can be written to, which the file never sees; it lasts as long as the file is not changed in place (a file that is
        replaced or deleted does no harm). Raises UnreadableFileError where the file is no longer the one that was opened.
        """


@dataclass(frozen=True)
class Checkpoint:
    """An open weights file: shapes and metadata at hand, data on request."""

    path: Path
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    fetch: Fetch


def main_dtype(tensors: Iterable[TensorInfo]) -> torch.dtype:
    """The dtype that holds most of the numbers (as the host's `comfy.utils.weight_dtype` counts it)."""
    numbers: dict[torch.dtype, int] = {}
    for info in tensors:
        numbers[info.dtype] = numbers.get(info.dtype, 0) + info.numel
    return max(numbers, key=lambda dtype: numbers[dtype])
