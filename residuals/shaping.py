"""Shaping: residuals times all that a layer says of them, over all blocks at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby

import torch
from torch import Tensor

from .rows import Neighbours, copied, views


def all_shaped(
    residuals: Sequence[Tensor], gain: float, weights: Sequence[float], factors: Sequence[float]
) -> tuple[list[Tensor], bool]:
    """Each residual · gain · its weight · the factor of each row, in this order; and whether in new tensors: they are unless all is one.

    Each has a row for each of `factors`, or one for all. The order matters to the last bit: a weighted residual is exactly the flat one times the
    weight, and every product is rounded to the residual's dtype, as is the factor of a row.
    """
    found, new = list(residuals), False
    # Out of place: in place torch's CPU code rounds a number to the residual's dtype before it multiplies, and nowhere else.
    if gain != 1 and found:
        found, new = list(torch._foreach_mul(found, gain)), True
    if any(weight != 1 for weight in weights):
        found, new = list(torch._foreach_mul(found, [float(weight) for weight in weights])), True
    if found and any(factor != 1 for factor in factors):
        if len(set(factors)) == 1 and all(residual.shape[0] == len(factors) for residual in found):
            return list(torch._foreach_mul(found, [rounded(factors[0], residual.dtype) for residual in found])), True
        count, runs = len(factors), runs_of_equal(factors)
        if not new or any(residual.shape[0] != count for residual in found):
            found, new = copied(found, count), True
        scalars = [rounded(factors[run.begin], residual.dtype) for residual in found for run in runs]
        torch._foreach_mul_(views(found, runs), scalars)  # by numbers of this dtype, which stay what they are
    return found, new


def shaped_by(residual: Tensor, gain: float, weight: float, factors: Sequence[float]) -> Tensor:
    """`all_shaped` for one residual."""
    return all_shaped([residual], gain, [weight], factors)[0][0]


def runs_of_equal(factors: Sequence[float]) -> list[Neighbours]:
    """Neighbouring rows with one factor, without those whose factor is one."""
    runs = []
    for factor, same in groupby(range(len(factors)), key=lambda row: factors[row]):
        rows = list(same)
        if factor != 1:
            runs.append(Neighbours(rows[0], rows[0], len(rows)))
    return runs


@lru_cache(maxsize=4096)
def rounded(factor: float, dtype: torch.dtype) -> float:
    """The number of `dtype` that is next to `factor`."""
    return float(torch.tensor(factor, dtype=dtype, device="cpu"))
