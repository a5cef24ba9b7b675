"""Moments: where in the sampling the model is asked, a pure function of sigma."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np

Axis = Literal["percent", "step"]

HALVINGS = 20
"""Of the range 0 … 1 in the search for a percent: to 1e-6, a thousandth of one of the 1000 training timesteps."""

KNOTS = 129
"""Places at which the host is asked for many percents at once; the first, where its sigma may be infinite, is left out."""


@dataclass(frozen=True)
class Moment:
    """A place in the sampling on both axes, each from 0 (all noise) to 1 (the end).

    `percent` is the host's own: the place among the model's training timesteps, so an img2img run of denoise 0.4 begins at about 0.6.
    `step` is the share of this run's steps that are done: i / n at the beginning of step i of n. `run` is what the moment is one of, for what
    depends on the other steps too; None where no sampler runs.
    """

    percent: float
    step: float
    run: Moments | None = field(default=None, compare=False, repr=False)

    def on(self, axis: Axis) -> float:
        return self.percent if axis == "percent" else self.step


class Moments:
    """The moment of each sigma of one sampling run.

    Nothing is counted: samplers of second order ask between their steps, restarting ones go back, caches leave calls out, and each sigma has
    the same moment whenever and however often it is asked for.

    `percent_to_sigma` is that of the model's sampling in the host, which falls from percent 0 to 1. `sample_sigmas` are the run's n + 1 sigmas,
    usually with 0 at the end; without them the step is taken for the percent.
    """

    def __init__(self, percent_to_sigma: Callable[[float], Any], sample_sigmas: Sequence[float] | None = None) -> None:
        self._percent_to_sigma = percent_to_sigma
        self._sigmas = None if sample_sigmas is None else tuple(float(sigma) for sigma in sample_sigmas)
        self._known: dict[float, Moment] = {}

    def __deepcopy__(self, _: Any) -> Moments:
        """Itself: a copy would take the host's model along, and there is nothing in it that two could disagree on."""
        return self

    def at(self, sigma: float) -> Moment:
        """`sigma` as the sampler gives it, not the network's timestep."""
        moment = self._known.get(sigma)
        if moment is None:
            percent = percent_of(sigma, self._percent_to_sigma)
            step = percent if self._sigmas is None or len(self._sigmas) < 2 else step_of(sigma, self._sigmas)
            moment = self._known[sigma] = Moment(percent, step, self)
        return moment

    @cached_property
    def begins(self) -> tuple[float, ...]:
        """The percent at which each step of the run begins; empty where its sigmas are not known."""
        return tuple(percent_of(sigma, self._percent_to_sigma) for sigma in (self._sigmas or ())[:-1])


def percent_of(sigma: float, percent_to_sigma: Callable[[float], Any]) -> float:
    """The last percent (0 … 1) at which the noise is still at least `sigma`.

    The last, because the host lets a control act from start_percent on where sigma <= percent_to_sigma(start_percent).
    """
    if sigma <= 0:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if float(percent_to_sigma(middle)) >= sigma:
            low = middle
        else:
            high = middle
    return low


def percents_of(sigmas: Sequence[float], percent_to_sigma: Callable[[float], Any]) -> tuple[float, ...]:
    """Percents of many sigmas, within about a tenth of a percent: for people to read, where `percent_of` would ask the host too often."""
    places = np.linspace(0.0, 1.0, KNOTS)
    falling = np.array([float(percent_to_sigma(float(place))) for place in places])
    with np.errstate(divide="ignore"):
        rising = -np.log(np.clip(falling, 1e-9, None))
        wanted = -np.log(np.clip(np.asarray(sigmas, dtype=np.float64), 1e-9, None))
    return tuple(np.interp(wanted, rising[1:], places[1:], left=0.0).tolist())


def step_of(sigma: float, sigmas: Sequence[float]) -> float:
    """The share of the steps (0 … 1) that are done at `sigma`: i / n at sigmas[i], n = len(sigmas) - 1.

    Between two sigmas it is interpolated in log sigma, the scale on which samplers of higher order choose their midpoints; beyond the list it is
    the place of the nearer end. A list that rises (unsampling) or turns (restarts) has the first place that fits.
    """
    count = len(sigmas) - 1
    if sigma in sigmas:
        return sigmas.index(sigma) / count
    for index, (begin, end) in enumerate(pairwise(sigmas)):
        if min(begin, end) < sigma < max(begin, end):
            return (index + share_between(sigma, begin, end)) / count
    return min(range(count + 1), key=lambda index: abs(sigmas[index] - sigma)) / count


def share_between(sigma: float, begin: float, end: float) -> float:
    """How far `sigma` is on the way from `begin` to `end`: in log sigma, but linearly next to 0, which has no logarithm."""
    if min(begin, end) <= 0:
        return (sigma - begin) / (end - begin)
    return math.log(sigma / begin) / math.log(end / begin)
