"""Rows of a batch, taken as runs of neighbours: views of them need no index, which would have to be sent to the device while Python waits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Neighbours(NamedTuple):
    """`length` rows of a batch from `first` on, which are those from `begin` on among the rows that were chosen."""

    begin: int
    first: int
    length: int


def runs_of(rows: Sequence[int]) -> list[Neighbours]:
    """The rows in their order, as few runs of neighbours."""
    runs: list[Neighbours] = []
    for begin, row in enumerate(rows):
        if runs and row == runs[-1].first + runs[-1].length:
            runs[-1] = runs[-1]._replace(length=runs[-1].length + 1)
        else:
            runs.append(Neighbours(begin, row, 1))
    return runs


def views(tensors: Sequence[Tensor], runs: Sequence[Neighbours]) -> list[Tensor]:
    """The rows `first` … of each run of each tensor."""
    return [tensor.narrow(0, run.first, run.length) for tensor in tensors for run in runs]


def shares(tensors: Sequence[Tensor], runs: Sequence[Neighbours]) -> list[Tensor]:
    """The rows `begin` … of each run of each tensor; a single row serves all."""
    return [
        tensor if tensor.shape[0] == 1 else tensor.narrow(0, run.begin, run.length)
        for tensor in tensors
        for run in runs
    ]


def picked(values: Tensor, rows: Sequence[int], count: int) -> Tensor:
    """The `rows` of a batch of `count`: itself where they are all, a view of it where they are neighbours, else a new tensor."""
    runs = runs_of(rows)
    if runs == [(0, 0, count)]:
        return values
    parts = views([values], runs)
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def put(values: Tensor, parts: Tensor, rows: Sequence[int]) -> Tensor:
    """A copy of a batch with `parts` at the places `rows`."""
    whole, runs = values.clone(), runs_of(rows)
    torch._foreach_copy_(views([whole], runs), shares([parts], runs))
    return whole


def copied(tensors: Sequence[Tensor], count: int) -> list[Tensor]:
    """New tensors of `count` rows, of as many or of one for all."""
    new = [tensor.new_empty((count, *tensor.shape[1:])) for tensor in tensors]
    torch._foreach_copy_(new, list(tensors))
    return new


def spread(residuals: Sequence[Tensor], rows: Sequence[int], count: int) -> list[Tensor]:
    """Puts the rows of each residual, or its one row, at the places `rows` of a batch of `count`; the other rows are zero."""
    if len(rows) == count:
        return list(residuals)
    full = [residual.new_empty((count, *residual.shape[1:])) for residual in residuals]
    taken = set(rows)
    runs = runs_of(rows)
    torch._foreach_zero_(views(full, runs_of([row for row in range(count) if row not in taken])))
    torch._foreach_copy_(views(full, runs), shares(residuals, runs))
    return full
