"""Schedules over the pictures of a batch: one factor for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from .batches import picture_of
from .moments import Moment
from .schedules import ListSchedule, Schedule, ScheduleError, check_finite

StrengthPolicy = Literal["cycle", "repeat", "hold last", "spread", "error"]


@dataclass(frozen=True)
class ImageStrengths(Schedule):
    """One factor for each picture of the batch.

    Fewer numbers than pictures: *cycle* starts over, *repeat* holds each for an equal share, *hold last* stays on the last, *spread* puts the
    first on the first picture, the last on the last, and joins them by straight lines, *error* refuses. One number is for all.
    """

    values: tuple[float, ...]
    policy: StrengthPolicy = "hold last"

    def __post_init__(self) -> None:
        if self.policy not in get_args(StrengthPolicy):
            raise ScheduleError(
                f'Image Strengths got the policy "{self.policy}", but it is one of {", ".join(get_args(StrengthPolicy))}; choose from these.'
            )
        if not self.values:
            raise ScheduleError("Image Strengths has no number, but at least one was expected; write one, such as 1.")
        for number, value in enumerate(self.values, 1):
            check_finite("Image Strengths", value, f"in place {number}")

    def __str__(self) -> str:
        return f"by picture {', '.join(f'{value:g}' for value in self.values)} ({self.policy})"

    def __call__(self, moment: Moment) -> float:
        return 1.0

    @property
    def timeless(self) -> bool:
        return True

    def pictures(self, count: int) -> tuple[float, ...]:
        given = len(self.values)
        if given > count:
            raise ScheduleError(
                f"Image Strengths has {given} numbers, but the batch has {pictures_in_words(count)}; write at most {count}, or make the batch "
                f"{given} long."
            )
        if given == 1:
            return self.values * count
        if given == count:
            return self.values
        if self.policy == "spread":
            line = ListSchedule(self.values, between="linear")
            return tuple(line(Moment(place, place)) for place in (number / (count - 1) for number in range(count)))
        if self.policy == "error":
            raise ScheduleError(
                f'Image Strengths has {given} numbers, but the batch has {pictures_in_words(count)} and the policy "error" wants one for each; '
                f"write {count}, or a single one, or choose {', '.join(p for p in get_args(StrengthPolicy) if p != 'error')}."
            )
        return tuple(self.values[picture_of(number, given, count, self.policy)] for number in range(count))


@dataclass(frozen=True)
class NamedStrengths(Schedule):
    """A factor for some pictures of the batch: (first, last, factor), counted from 0. The others keep 1."""

    spans: tuple[tuple[int, int, float], ...]

    def __post_init__(self) -> None:
        used = -1
        for first, last, value in sorted(self.spans):
            check_finite("Image Strengths", value, f"for picture {first}")
            if not 0 <= first <= last:
                raise ScheduleError(
                    f"Image Strengths has the pictures {first} to {last}, but the first picture is 0 and ranges go upwards; write the smaller "
                    "number first."
                )
            if first <= used:
                raise ScheduleError(
                    f"Image Strengths names picture {first} twice, but one strength for each was expected; remove one of them."
                )
            used = last

    def __str__(self) -> str:
        words = (
            f"{first if first == last else f'{first}-{last}'}: {value:g}" for first, last, value in sorted(self.spans)
        )
        return f"by picture {', '.join(words)}"

    def __call__(self, moment: Moment) -> float:
        return 1.0

    @property
    def timeless(self) -> bool:
        return True

    def pictures(self, count: int) -> tuple[float, ...]:
        factors = [1.0] * count
        for first, last, value in self.spans:
            if last >= count:
                raise ScheduleError(
                    f"Image Strengths names picture {last}, but the batch has {pictures_in_words(count)}, counted from 0; name pictures up to "
                    f"{count - 1}, or make the batch {last + 1} long."
                )
            factors[first : last + 1] = [value] * (last + 1 - first)
        return tuple(factors)


def pictures_in_words(count: int) -> str:
    return f"{count} picture{'' if count == 1 else 's'}"


def described(strengths: ImageStrengths | NamedStrengths) -> str:
    """The factor of each picture as a line for a person; a list is shown on a batch that is longer than it, where its policy allows that."""
    if isinstance(strengths, NamedStrengths):
        names = (
            f"picture {first}: {value:.4g}" if first == last else f"pictures {first} to {last}: {value:.4g}"
            for first, last, value in sorted(strengths.spans)
        )
        return "\n".join((*names, "all others: 1"))
    given = len(strengths.values)
    count = given if strengths.policy == "error" and given > 1 else max(4, 2 * given)
    factors = ", ".join(f"{value:.4g}" for value in strengths.pictures(count))
    return f"in a batch of {pictures_in_words(count)}: {factors}"
