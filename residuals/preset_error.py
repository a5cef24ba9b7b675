"""What is wrong with a preset, and the reading of its numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Any


class PresetError(ValueError):
    """A preset that cannot be read, written, or combined: one sentence."""


def number_of(value: Any, where: str, least: float = -math.inf, most: float = math.inf) -> float:
    """A JSON value as a finite float within its range. Raises PresetError."""
    try:
        found = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    except OverflowError:  # a whole number that no float can hold
        found = math.nan
    if math.isfinite(found) and least <= found <= most:
        return found
    expected = "a finite number" if math.isinf(most) else f"a number from {least:g} to {most:g}"
    raise PresetError(f"The preset has {shown(value)} as {where}, but {expected} was expected; write one, such as 1.")


def word_of(value: Any, where: str, known: Collection[str]) -> str:
    """A JSON value that is one of the known words. Raises PresetError."""
    if isinstance(value, str) and value in known:
        return value
    raise PresetError(
        f'The preset has {shown(value)} as {where}, but it is one of {", ".join(known)}; write "{nearest(str(value), known)}".'
    )


def check_keys(found: Iterable[str], known: Collection[str], where: str) -> None:
    """Raises PresetError for a key that is not known."""
    for key in found:
        if key not in known:
            raise PresetError(
                f'{where} has "{key[:40]}", but only {", ".join(known)} are known; write "{nearest(key, known)}", or remove it.'
            )


def nearest(word: str, known: Collection[str]) -> str:
    """The known word that was probably meant; the first where none is like it."""
    return next(iter(get_close_matches(word, known, 1, 0.4)), next(iter(known)))


def shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:40]


def plain(value: float) -> float | int:
    """1.0 as 1, for people; every other float as it is, so that it is read back bit by bit."""
    value = float(value)
    whole = value.is_integer() and abs(value) < 2**53 and (value != 0 or math.copysign(1.0, value) > 0)
    return int(value) if whole else value


def without_defaults(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What is not as it would be without being said."""
    return {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}
