"""What is known of a tensor before its data is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True)
class Checkpoint:
    """An open weights file: shapes and metadata at hand, data on request.

    `fetch` takes names as they are in the file and returns CPU tensors, memory-mapped where the format allows.
    """

    path: Path
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    fetch: Callable[[Iterable[str]], dict[str, Tensor]]


def main_dtype(tensors: Iterable[TensorInfo]) -> torch.dtype:
    """The dtype that holds most of the numbers (as the host's `comfy.utils.weight_dtype` counts it)."""
    numbers: dict[torch.dtype, int] = {}
    for info in tensors:
        numbers[info.dtype] = numbers.get(info.dtype, 0) + info.numel
    return max(numbers, key=lambda dtype: numbers[dtype])
