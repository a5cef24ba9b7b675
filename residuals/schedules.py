"""Schedules: the strength over the sampling, and over the pictures of a batch. Pure functions; they multiply when combined."""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from .moments import Axis, Moment

Easing = Literal["linear", "ease", "ease-in", "ease-out", "hold"]
Between = Literal["hold", "linear"]

EASINGS: dict[Easing, Callable[[float], float]] = {
    "linear": lambda share: share,
    "ease": lambda share: share * share * (3 - 2 * share),  # smoothstep
    "ease-in": lambda share: share * share,
    "ease-out": lambda share: share * (2 - share),
    "hold": lambda share: 0.0,
}
"""How much of the way from one strength to the next is done when `share` (0 … 1) of the time between them is over."""

TOLERANCE = 5e-4
"""A step that comes this little before a place counts as having reached it.

So a position typed with three decimals acts at the step that it was rounded from (0.667 at step 2 of 3), and the rounding of sigma to float32
never costs a step. On the percent axis it is half of one of the 1000 training timesteps.
"""


class ScheduleError(ValueError):
    """A schedule that cannot be meant, or that does not go with the batch."""


class Schedule(ABC):
    """A factor for the strength: one for the moment, and one for each picture of the batch."""

    @abstractmethod
    def __call__(self, moment: Moment) -> float:
        """The finite factor at a moment; the same whenever and however often it is asked for."""

    @property
    def timeless(self) -> bool:
        """Whether the factor is 1 at every moment, so that nobody has to find out which moment it is."""
        return False

    def pictures(self, count: int) -> tuple[float, ...]:
        """One factor for each of the `count` latents of the batch; 1 for all where the schedule does not tell them apart."""
        return (1.0,) * count

    def __mul__(self, other: Schedule) -> Schedule:
        return Product((self, other))


@dataclass(frozen=True)
class Product(Schedule):
    """Several schedules multiplied, at each moment and for each picture."""

    parts: tuple[Schedule, ...]

    def __str__(self) -> str:
        return " × ".join(str(part) for part in self.parts)

    def __call__(self, moment: Moment) -> float:
        return math.prod(part(moment) for part in self.parts)

    @property
    def timeless(self) -> bool:
        return all(part.timeless for part in self.parts)

    def pictures(self, count: int) -> tuple[float, ...]:
        return tuple(math.prod(factors) for factors in zip(*(part.pictures(count) for part in self.parts), strict=True))


@dataclass(frozen=True)
class Keyframe:
    """`strength` at `position` (0 … 1); `easing` is the way to it from the keyframe before, and has no meaning on the first."""

    position: float
    strength: float
    easing: Easing = "linear"


@dataclass(frozen=True)
class Keyframes(Schedule):
    """Strengths at positions, in order. Before the first its strength, after the last its strength; two at one position are a jump."""

    frames: tuple[Keyframe, ...]
    axis: Axis = "percent"

    def __post_init__(self) -> None:
        check_axis("Strength Keyframes", self.axis)
        if not self.frames:
            raise ScheduleError(
                "Strength Keyframes has no keyframe, but at least one was expected; add one, such as 1 at position 0."
            )
        for number, frame in enumerate(self.frames, 1):
            check_finite("Strength Keyframes", frame.strength, f"as the strength of keyframe {number}")
            if not 0 <= frame.position <= 1:
                raise ScheduleError(
                    f"Strength Keyframes has the position {frame.position:g} for keyframe {number}, but positions run from 0, the beginning "
                    "of the sampling, to 1, its end; choose one between them."
                )
            if frame.easing not in EASINGS:
                raise ScheduleError(
                    f'Strength Keyframes has the easing "{frame.easing}" for keyframe {number}, but {", ".join(EASINGS)} are known; '
                    f'use "{nearest_easing(frame.easing) or "linear"}".'
                )
        for number, (before, after) in enumerate(pairwise(self.frames), 2):
            if after.position < before.position:
                raise ScheduleError(
                    f"Strength Keyframes has keyframe {number} at {after.position:g}, after the one at {before.position:g}, but positions "
                    "must not go backwards; put the keyframes in the order of their positions."
                )

    def __str__(self) -> str:
        """As it is written in the node, and the axis."""
        words = (
            f"{frame.strength:g}@{frame.position:g}{'' if frame.easing == 'linear' else f' {frame.easing}'}"
            for frame in self.frames
        )
        return f"{', '.join(words)} ({self.axis})"

    def __call__(self, moment: Moment) -> float:
        place = moment.on(self.axis)
        place = next((frame.position for frame in self.frames if 0 < frame.position - place <= TOLERANCE), place)
        passed = sum(frame.position <= place for frame in self.frames)
        if passed in (0, len(self.frames)):
            return self.frames[max(passed - 1, 0)].strength
        before, after = self.frames[passed - 1], self.frames[passed]
        share = EASINGS[after.easing]((place - before.position) / (after.position - before.position))
        return (1 - share) * before.strength + share * after.strength


@dataclass(frozen=True)
class CurveSchedule(Schedule):
    """A drawn curve: `low` where `curve(place)` is 0, `high` where it is 1."""

    curve: Callable[[float], float]
    low: float = 0.0
    high: float = 1.0
    axis: Axis = "percent"

    def __post_init__(self) -> None:
        check_axis("Strength Curve", self.axis)
        check_finite("Strength Curve", self.low, "as its strength at height 0")
        check_finite("Strength Curve", self.high, "as its strength at height 1")

    def __str__(self) -> str:
        return f"curve from {self.low:g} to {self.high:g} ({self.axis})"

    def __call__(self, moment: Moment) -> float:
        share = float(self.curve(moment.on(self.axis)))
        return (1 - share) * self.low + share * self.high


@dataclass(frozen=True)
class ListSchedule(Schedule):
    """k numbers over the axis.

    *hold*: each acts for an equal share, number i from i / k on; with as many numbers as steps on the step axis, number i acts at step i.
    *linear*: the first at 0, the last at 1, the others evenly between them, joined by straight lines.
    """

    values: tuple[float, ...]
    axis: Axis = "percent"
    between: Between = "hold"

    def __post_init__(self) -> None:
        check_axis("the list of strengths", self.axis)
        if self.between not in get_args(Between):
            raise ScheduleError(
                f'the list of strengths got "{self.between}" for what is between its numbers, but it is one of {", ".join(get_args(Between))}; '
                "choose from these."
            )
        if not self.values:
            raise ScheduleError(
                "the list of strengths is empty, but at least one number was expected; write one, such as 1."
            )
        for number, value in enumerate(self.values, 1):
            check_finite("the list of strengths", value, f"in place {number}")

    def __str__(self) -> str:
        return f"{', '.join(f'{value:g}' for value in self.values)} ({self.between}, {self.axis})"

    def __call__(self, moment: Moment) -> float:
        place, last = moment.on(self.axis), len(self.values) - 1
        if self.between == "hold":
            # The tolerance ends before the next number where there are more than 500.
            return self.values[min(last, int(place * (last + 1) + min(TOLERANCE * (last + 1), 0.25)))]
        index = min(int(place * last), max(last - 1, 0))
        share = place * last - index
        return (1 - share) * self.values[index] + share * self.values[min(index + 1, last)]


def check_axis(name: str, axis: str) -> None:
    if axis not in get_args(Axis):
        raise ScheduleError(
            f'{name} got the axis "{axis}", but it is one of {", ".join(get_args(Axis))}; choose from these.'
        )


def check_finite(name: str, value: float, where: str) -> None:
    if not math.isfinite(value):
        raise ScheduleError(f"{name} has {value} {where}, but a finite number was expected; write one, such as 1.")


def nearest_easing(word: str) -> str | None:
    """The easing that `word` was probably meant to be."""
    return next(iter(difflib.get_close_matches(word.lower(), EASINGS, 1, 0.5)), None)


def table(schedule: Schedule, axis: Axis, rows: int = 10) -> str:
    """What a schedule over one axis resolves to, as lines for a person: one for each of `rows` places, on the percent axis the end too."""
    places = [number / rows for number in range(rows + (axis == "percent"))]
    head = "percent of the sampling: strength" if axis == "percent" else f"step, in a run of {rows} steps: strength"
    names = [f"{100 * place:g} %" if axis == "percent" else str(round(place * rows)) for place in places]
    values = [schedule(Moment(place, place)) for place in places]
    return "\n".join((head, *(f"{name}: {value:.4g}" for name, value in zip(names, values, strict=True))))
