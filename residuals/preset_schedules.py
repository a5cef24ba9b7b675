"""Schedules in a preset: their written form, read and written without loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast, get_args

from .moments import Axis
from .preset_error import PresetError, check_keys, number_of, plain, without_defaults, word_of
from .schedule_images import ImageStrengths, NamedStrengths, StrengthPolicy
from .schedule_text import parse_schedule, parse_strengths
from .schedules import Between, CurveSchedule, Keyframes, ListSchedule, Product, Schedule

KEYS: dict[str, dict[str, Any]] = {
    "keyframes": {"axis": "percent", "between": "hold"},
    "pictures": {"policy": "hold last"},
    "curve": {"low": 0, "high": 1, "axis": "percent"},
    "product": {},
}
"""The first key of each kind of schedule, and its others with what they are where they are not written."""

Curve = Callable[[float], float]


def no_curve(value: Any) -> Any:
    raise PresetError(
        "The preset has a drawn curve, but here nothing reads or writes curves; use keyframes, or a node of ComfyUI."
    )


@dataclass(frozen=True)
class Curves:
    """How drawn curves, which are the host's, are read from JSON and written as it; both may raise ValueError."""

    read: Callable[[Any], Curve] = no_curve
    write: Callable[[Curve], Any] = no_curve


def schedule_from(value: Any, curves: Curves) -> Schedule:
    """A schedule from a JSON value. Raises PresetError.

    {"keyframes": "1@0, 0@0.7 hold", "axis": "step"} is what Strength Keyframes reads, and a text alone its keyframes; {"pictures": "1, 0.5"}
    what Image Strengths reads; {"curve": …} the value of Strength Curve; {"product": [...]} several multiplied.
    """
    if isinstance(value, str):
        value = {"keyframes": value}
    kind = next((key for key in KEYS if isinstance(value, dict) and key in value), None)
    if kind is None:
        raise PresetError(
            f'"schedule" of the preset has none of {", ".join(KEYS)}, but one of them was expected; write, for example, '
            '{"keyframes": "1@0, 0@1", "axis": "percent"}.'
        )
    check_keys(value, (kind, *KEYS[kind]), f'"schedule" of the preset, beside "{kind}",')
    try:
        return of_kind(kind, {**KEYS[kind], **value}, curves)
    except PresetError:
        raise
    except ValueError as problem:
        raise PresetError(f"The schedule of the preset cannot be read: {problem}") from None


def of_kind(kind: str, value: dict[str, Any], curves: Curves) -> Schedule:
    own = value[kind]
    if kind == "product":
        if not isinstance(own, list) or not own:
            raise PresetError(
                'The preset has no list as "product" of its schedule, but at least one schedule in [ ] was expected; write one.'
            )
        return Product(tuple(schedule_from(part, curves) for part in own))
    if kind == "curve":
        axis = cast(Axis, word_of(value["axis"], '"axis"', get_args(Axis)))
        low, high = (number_of(value[name], f'"{name}" of its curve') for name in ("low", "high"))
        return CurveSchedule(curves.read(own), low, high, axis)
    if not isinstance(own, str):
        raise PresetError(
            f'The preset has no text as "{kind}", but what is typed into the node was expected; put it into quotation marks.'
        )
    if kind == "pictures":
        return parse_strengths(
            own, cast(StrengthPolicy, word_of(value["policy"], '"policy"', get_args(StrengthPolicy)))
        )
    axis = cast(Axis, word_of(value["axis"], '"axis"', get_args(Axis)))
    return parse_schedule(own, axis, cast(Between, word_of(value["between"], '"between"', get_args(Between))))


def schedule_json(schedule: Schedule, curves: Curves) -> Any:
    """The JSON value that `schedule_from` reads back as a schedule that acts alike at each moment. Raises PresetError for another kind."""
    if type(schedule) is Keyframes:
        frames = (
            # An easing is the way from the keyframe before: on the first it has no meaning, and no text.
            f"{plain(frame.strength)}@{plain(frame.position)}{f' {frame.easing}' if at and frame.easing != 'linear' else ''}"
            for at, frame in enumerate(schedule.frames)
        )
        return {"keyframes": ", ".join(frames), "axis": schedule.axis}
    if type(schedule) is ListSchedule:
        values = ", ".join(str(plain(value)) for value in schedule.values)
        return {"keyframes": values, "axis": schedule.axis, "between": schedule.between}
    if type(schedule) is ImageStrengths:
        return {"pictures": ", ".join(str(plain(value)) for value in schedule.values), "policy": schedule.policy}
    if type(schedule) is NamedStrengths:
        spans = (f"{first}-{last}: {plain(value)}" for first, last, value in schedule.spans)
        return {"pictures": ", ".join(spans)}
    if type(schedule) is CurveSchedule:
        said = {"low": plain(schedule.low), "high": plain(schedule.high), "axis": schedule.axis}
        return {"curve": curves.write(schedule.curve), **without_defaults(said, {"low": 0})}
    if type(schedule) is Product:
        return {"product": [schedule_json(part, curves) for part in schedule.parts]}
    raise PresetError(
        f"The schedule is of a kind without a written form ({type(schedule).__name__}), but a preset holds those of Strength Keyframes, Strength "
        "Curve and Image Strengths; connect one of these."
    )
