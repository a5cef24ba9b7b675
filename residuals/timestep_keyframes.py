"""Timestep keyframes in the way of Advanced-ControlNet: from when on which strength, weights, mask and strengths of pictures act."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from torch import Tensor

from .keyframe_weights import KeyframeWeights
from .moments import Moment
from .schedules import Schedule, ScheduleError, check_finite

PRECISION = 2e-6
"""By how much a percent that was searched for may be too small; see `moments.percent_of`."""


@dataclass(frozen=True)
class LatentStrengths:
    """Strengths of some pictures of a batch: (place, strength), the place counted from 0, or back from -1."""

    entries: tuple[tuple[int, float], ...] = ()

    def over(self, others: LatentStrengths | None) -> LatentStrengths:
        """Both; where they name the same place, these."""
        both = dict(() if others is None else others.entries) | dict(self.entries)
        return LatentStrengths(tuple(sorted(both.items())))

    def pictures(self, count: int, unnamed: float) -> tuple[float, ...]:
        """One for each of `count` pictures; places outside of the batch are without effect."""
        factors = [unnamed] * count
        for place, strength in sorted(self.entries):
            position = place + count if place < 0 else place
            if 0 <= position < count:
                factors[position] = strength
        return tuple(factors)

    def __str__(self) -> str:
        return ", ".join(f"{place}: {strength:g}" for place, strength in self.entries) or "none"


@dataclass(frozen=True, eq=False)
class TimestepKeyframe:
    """From `start_percent` on these settings; what is None stays as the keyframe before had it, unless `inherit_missing` is off.

    `null_latent_strength` is that of the pictures that `latents` do not name. Where several keyframes begin between two steps, each with
    `guarantee_steps` above 0 acts for so many steps before the next.
    """

    start_percent: float = 0.0
    strength: float = 1.0
    weights: KeyframeWeights | None = None
    latents: LatentStrengths | None = None
    null_latent_strength: float = 0.0
    inherit_missing: bool = True
    guarantee_steps: int = 1
    mask: Tensor | None = None


Timeline = tuple[TimestepKeyframe, ...]
"""Keyframes in the order of their starts; the first starts at 0."""

PLAIN: Timeline = (TimestepKeyframe(guarantee_steps=0),)
"""Nothing but the control's own strength: what acts before the first keyframe that somebody set."""


def with_keyframes(timeline: Timeline | None, frames: Iterable[TimestepKeyframe]) -> Timeline:
    """The keyframes of both; of those that start together the earlier one of the graph comes first."""
    return tuple(sorted((*(timeline or PLAIN), *frames), key=lambda frame: frame.start_percent))


@dataclass(frozen=True, eq=False)
class Settings:
    """What a keyframe comes to, with what it takes over from those before it."""

    weights: KeyframeWeights = field(default_factory=KeyframeWeights)
    latents: LatentStrengths | None = None
    null_latent_strength: float = 0.0
    mask: Tensor | None = None

    def same_as(self, other: Settings) -> bool:
        """Whether one layer can have both."""
        return (
            self.weights is other.weights
            and self.latents == other.latents
            and (self.latents is None or self.null_latent_strength == other.null_latent_strength)
            and self.mask is other.mask
        )


DEFAULT_WEIGHTS = KeyframeWeights()


def settings_of(
    timeline: Timeline, weights: KeyframeWeights | None = None, latents: LatentStrengths | None = None
) -> tuple[Settings, ...]:
    """For each keyframe. `weights` and `latents` take the place of all that the keyframes have."""
    found: list[Settings] = []
    held = Settings(DEFAULT_WEIGHTS)
    for frame in timeline:
        before = held if frame.inherit_missing else Settings(DEFAULT_WEIGHTS)
        held = Settings(
            frame.weights or before.weights,
            before.latents if frame.latents is None else frame.latents,
            frame.null_latent_strength,
            before.mask if frame.mask is None else frame.mask,
        )
        chosen_latents = held.latents if latents is None else latents
        found.append(Settings(weights or held.weights, chosen_latents, held.null_latent_strength, held.mask))
    return tuple(found)


@dataclass(frozen=True)
class KeyframeSchedule(Schedule):
    """The strength of those keyframes of a timeline that share their settings; 0 while one of the others acts."""

    starts: tuple[float, ...]
    guaranteed: tuple[int, ...]
    strengths: tuple[float, ...]
    latents: LatentStrengths | None = None
    null_latent_strength: float = 0.0

    def __post_init__(self) -> None:
        for number, start in enumerate(self.starts):
            if not 0 <= start <= 1:
                raise ScheduleError(
                    f"Timestep Keyframe {number} starts at {start:g}, but starts run from 0, the beginning of the sampling, to 1, its end; choose "
                    "one between them."
                )
            check_finite("Timestep Keyframe", self.strengths[number], f"as the strength of keyframe {number}")

    def __str__(self) -> str:
        words = ", ".join(
            f"{strength:g}@{start:g} hold" for start, strength in zip(self.starts, self.strengths, strict=True)
        )
        return (
            words
            if self.latents is None
            else f"{words} × pictures {self.latents}, others {self.null_latent_strength:g}"
        )

    def __call__(self, moment: Moment) -> float:
        return self.strengths[keyframe_at(self.starts, self.guaranteed, moment)]

    def pictures(self, count: int) -> tuple[float, ...]:
        return (1.0,) * count if self.latents is None else self.latents.pictures(count, self.null_latent_strength)


def keyframe_at(starts: tuple[float, ...], guaranteed: tuple[int, ...], moment: Moment) -> int:
    """Which keyframe acts at a moment."""
    begins = () if moment.run is None else moment.run.begins
    if not begins:
        return max(0, sum(start <= moment.percent + PRECISION for start in starts) - 1)
    step = int(moment.step * len(begins) + PRECISION)
    return keyframes_of_steps(starts, guaranteed, begins)[min(step, len(begins) - 1)]


@lru_cache(maxsize=64)
def keyframes_of_steps(
    starts: tuple[float, ...], guaranteed: tuple[int, ...], begins: tuple[float, ...]
) -> tuple[int, ...]:
    """Which keyframe acts in each step, for steps that begin at these percents. It never goes back to one before."""

    def owed(index: int) -> int:
        """Its steps; none where it starts before the run does."""
        return 0 if starts[index] <= 0 or starts[index] < begins[0] - PRECISION else guaranteed[index]

    found: list[int] = []
    index, used = -1, 0
    for begin in begins:
        if index < 0 or used >= owed(index):
            for candidate in range(index + 1, len(starts)):
                if starts[candidate] > begin + PRECISION:
                    break
                index, used = candidate, 0
                if owed(candidate) > 0:
                    break
        used += 1
        found.append(max(index, 0))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Part:
    """A layer's worth of a timeline: settings, and when they act; `schedule` is None where that is always, at full strength."""

    settings: Settings
    schedule: KeyframeSchedule | None


def parts_of(
    timeline: Timeline | None, weights: KeyframeWeights | None = None, latents: LatentStrengths | None = None
) -> tuple[Part, ...]:
    """A timeline as parts of which one acts at a time: keyframes that differ in their strengths only are one part.

    Raises ScheduleError for keyframes that cannot be meant.
    """
    timeline = timeline or PLAIN
    # Of several that start at 0 only the last ever acts.
    live = [
        index for index in range(len(timeline)) if not any(frame.start_percent <= 0 for frame in timeline[index + 1 :])
    ]
    settings_by_frame = settings_of(timeline, weights, latents)
    timeline = tuple(timeline[index] for index in live)
    groups: list[tuple[Settings, list[int]]] = []
    for index, one in enumerate(settings_by_frame[index] for index in live):
        members = next((members for settings, members in groups if settings.same_as(one)), None)
        if members is None:
            groups.append((one, [index]))
        else:
            members.append(index)
    starts = tuple(frame.start_percent for frame in timeline)
    guaranteed = tuple(frame.guarantee_steps for frame in timeline)

    def schedule(settings: Settings, members: Sequence[int]) -> KeyframeSchedule | None:
        strengths = tuple(frame.strength if index in members else 0.0 for index, frame in enumerate(timeline))
        own = KeyframeSchedule(starts, guaranteed, strengths, settings.latents, settings.null_latent_strength)
        return None if set(strengths) == {1.0} and settings.latents is None else own

    return tuple(Part(settings, schedule(settings, members)) for settings, members in groups)
