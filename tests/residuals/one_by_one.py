"""What the accumulator and `all_shaped` must give to the last bit: block by block, with an index and a factor for each row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from control_composer.residuals.accumulator import At

Sums = dict[At, Tensor]


def shaped_by(residual: Tensor, gain: float, weight: float, factors: Sequence[float]) -> Tensor:
    for factor in (gain, weight):
        if factor != 1:
            residual = residual * factor
    if any(factor != 1 for factor in factors):
        by_row = torch.tensor(factors, dtype=residual.dtype)
        residual = residual * by_row.view(-1, *[1] * (residual.ndim - 1))
    return residual


def spread(residual: Tensor, rows: Sequence[int], count: int) -> Tensor:
    if len(rows) == count:
        return residual
    full = residual.new_zeros((count, *residual.shape[1:]))
    return full.index_copy_(0, torch.tensor(rows), residual.expand(len(rows), *residual.shape[1:]))


def add_rows(sums: Sums, at: At, residual: Tensor, rows: Sequence[int], count: int) -> None:
    before = sums.get(at)
    if before is None:
        sums[at] = spread(residual, rows, count)
    elif len(rows) == count or before.shape[0] != count:
        sums[at] = before + spread(residual, rows, count)
    else:
        every = residual.expand(len(rows), *residual.shape[1:])
        sums[at] = before.index_add(0, torch.tensor(rows), every.to(before.dtype))
