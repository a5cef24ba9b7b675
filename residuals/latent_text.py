"""Strengths of pictures as Latent Keyframe Group has them written: "0, 4=0.5, 8:12=0.2"."""

from __future__ import annotations

import re

INDEX = re.compile(r"-?\d{1,9}")


def parse_latents(text: str, count: int | None = None) -> tuple[tuple[int, float], ...]:
    """(place, strength) in their order; a range ends before its second number, and without a strength it is 1.

    With the length of the batch, `count`, places may count back from its end, as in Python. Raises ValueError.
    """
    found: dict[int, float] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        places, equals, written = (part.strip() for part in item.partition("="))
        strength = strength_of(written, item) if equals else 1.0
        for place in places_of(places, item, count):
            found[place] = strength
    return tuple(sorted(found.items()))


def places_of(text: str, item: str, count: int | None) -> range:
    numbers = [part.strip() for part in text.split(":")]
    if len(numbers) > 2 or not all(INDEX.fullmatch(number) for number in numbers):
        raise refusal(item, "places are whole numbers and ranges such as 8:12")
    first, *ends = (int(number) for number in numbers)
    if count is None and min(first, *ends, 0) < 0:
        raise refusal(item, "without latent_optional places count from 0")
    if ends:
        return range(first, ends[0]) if count is None else range(*slice(first, ends[0]).indices(count))
    if count is not None and not -count <= first < count:
        raise refusal(item, f"the batch has {count}")
    place = first + count if count is not None and first < 0 else first
    return range(place, place + 1)


def strength_of(text: str, item: str) -> float:
    try:
        strength = float(text)
    except ValueError:
        raise refusal(item, "a strength is a number") from None
    if not 0 <= strength < float("inf"):
        raise refusal(item, "a strength is a number from 0")
    return strength


def refusal(item: str, expected: str) -> ValueError:
    return ValueError(f'index_strengths of Latent Keyframe Group has "{item}" in it, but {expected}; correct it.')
