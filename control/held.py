"""What a run keeps of evaluations, for layers that reuse them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..residuals.moments import step_of
from ..residuals.residuals import PLACES, Residuals
from .reuse import Reuse

SHORT_OF_A_STEP = 1e-4
"""Of a step: what rounding may take from a whole number of steps."""

Parts = list[tuple[tuple[int, ...], Residuals]]
"""The residuals of some rows of the batch, for each pass that computed them."""


@dataclass(eq=False)
class Evaluated:
    """What one step gave: the residuals of the rows of each pass, before weights, masks and strengths."""

    sigma: float
    step: int | None
    """Counted from 0; None where the sampler does not tell its steps."""
    parts: Parts = field(default_factory=list)

    def cloned(self) -> Evaluated:
        return replace(self, parts=[(rows, residuals.map(lambda x, *_: x.clone())) for rows, residuals in self.parts])


@dataclass(eq=False)
class Held:
    """What a run keeps of evaluations that may be reused: the last two of each, by what was evaluated for which rows."""

    _evaluated: dict[Hashable, list[Evaluated]] = field(default_factory=dict)

    def reusable(
        self, key: Hashable, reuse: Reuse, sigma: float, sigmas: Sequence[float] | None, ends: Sequence[float]
    ) -> Evaluated | None:
        """What to add at `sigma` without an evaluation; None where it has to be evaluated.

        `sigmas` are those of the run, `ends` those at which the ranges of the layers end.
        """
        kept = self._evaluated.get(key, [])
        if not kept or reuse.never:
            return None
        last, now = kept[-1], step_number(sigma, sigmas)
        if reuse.every > 1 and (now is None or last.step is None or not 0 <= now - last.step < reuse.every):
            return None
        if reuse.ratio > 1 and not within(sigma, last.sigma, reuse.ratio):
            return None
        if now is not None and sigmas is not None and is_last(now, sigmas, ends) and now != last.step:
            return None
        return continued(kept[-2], last, sigma) if reuse.extrapolate and len(kept) > 1 else last

    def make_room(self, key: Hashable, reuse: Reuse) -> None:
        """Before an evaluation: what nobody will ask for after it goes, so that it is not there beside it."""
        kept = self._evaluated.get(key, [])
        del kept[: -1 if reuse.extrapolate else None]

    def keep(self, key: Hashable, reuse: Reuse, sigma: float, sigmas: Sequence[float] | None, parts: Parts) -> None:
        """Keeps what was evaluated; what came before goes, but for the last one where the way from there is continued."""
        kept = self._evaluated.setdefault(key, [])
        kept.append(Evaluated(sigma, step_number(sigma, sigmas), parts))
        del kept[: -2 if reuse.extrapolate else -1]

    def cloned(self) -> Held:
        """The same in memory of the current stream."""
        return Held({key: [one.cloned() for one in kept] for key, kept in self._evaluated.items()})


def step_number(sigma: float, sigmas: Sequence[float] | None) -> int | None:
    """The step of the run, from 0, in which the sampler asks; None where its sigmas are not known."""
    if sigmas is None or len(sigmas) < 2:
        return None
    return int(step_of(sigma, sigmas) * (len(sigmas) - 1) + SHORT_OF_A_STEP)


def within(sigma: float, other: float, ratio: float) -> bool:
    low, high = sorted((sigma, other))
    return low > 0 and high / low < ratio


def is_last(number: int, sigmas: Sequence[float], ends: Sequence[float]) -> bool:
    """Whether a step is the last one of the run, or the last one before the range of some layer ends."""
    return number >= len(sigmas) - 2 or any(sigmas[number + 1] < end for end in ends)


def continued(before: Evaluated, last: Evaluated, sigma: float) -> Evaluated:
    """From two evaluations on to `sigma`, linearly in log sigma, at most as far again as the two are apart."""
    if min(before.sigma, last.sigma, sigma) <= 0 or before.sigma == last.sigma:
        return last
    if [rows for rows, _ in before.parts] != [rows for rows, _ in last.parts]:
        return last
    way = math.log(last.sigma / sigma) / math.log(before.sigma / last.sigma)
    share = min(max(way, 0.0), 1.0)
    parts = [(rows, further(old, new, share)) for (rows, new), (_, old) in zip(last.parts, before.parts, strict=True)]
    return Evaluated(last.sigma, last.step, parts)


def further(old: Residuals, new: Residuals, share: float) -> Residuals:
    """new + share · (new - old), block by block."""

    def each(a: Tensor | None, b: Tensor | None) -> Tensor | None:
        return b if a is None or b is None or a.shape != b.shape else torch.lerp(a, b, 1.0 + share)

    return Residuals(
        **{
            place: tuple(each(a, b) for a, b in zip(getattr(old, place), getattr(new, place), strict=True))
            for place in PLACES
        }
    )


def rows_of(residuals: Residuals, start: int, count: int) -> Residuals:
    """The rows from `start` on, `count` of them; a single row serves all. What is left out of the rows is not kept by them."""

    def some(residual: Tensor, *_: object) -> Tensor:
        return residual if residual.shape[0] in (1, count) else residual[start : start + count].clone()

    return residuals.map(some)
