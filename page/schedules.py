"""The answer "schedule": what schedule nodes resolve to before anything runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import mul
from typing import Any, get_args

from ..nodes.schedule import curve_schedule, read_curve
from ..residuals.moments import Axis, Moment, Moments
from ..residuals.schedule_images import ImageStrengths, NamedStrengths, StrengthPolicy
from ..residuals.schedule_text import parse_schedule, parse_strengths
from ..residuals.schedules import TOLERANCE, Between, Keyframes, ListSchedule, Schedule
from .noise import DEMO_WORLD, Noise, Steps, noise_of, steps_of

Mark = tuple[float, float]

PLACES = 100
"""Equal parts in which a line is drawn over the sampling."""

PICTURES_SHOWN = 64
LARGEST = 4096
"""Pictures of a batch, as the host's own nodes allow; a text may name far more."""


@dataclass(frozen=True)
class Own:
    """The settings of one node: its schedule, its axis, where it tells moments apart, and its keyframes as place and strength."""

    schedule: Schedule
    axis: Axis | None
    marks: tuple[Mark, ...] = ()


def of_curve(values: Mapping[str, Any]) -> Own:
    axis, scale = chosen(values, "axis", get_args(Axis)), float(values.get("scale", 1.0))
    schedule = curve_schedule(values.get("curve"), scale, axis)
    return Own(schedule, axis, tuple((x, scale * y) for x, y in read_curve(values.get("curve")).points))


def of_keyframes(values: Mapping[str, Any]) -> Own:
    axis, between = chosen(values, "axis", get_args(Axis)), chosen(values, "between", get_args(Between))
    schedule = parse_schedule(str(values.get("keyframes", "")), axis, between)
    if isinstance(schedule, Keyframes):
        return Own(schedule, axis, tuple((frame.position, frame.strength) for frame in schedule.frames))
    if isinstance(schedule, ListSchedule):
        count = len(schedule.values) if schedule.between == "hold" else max(len(schedule.values) - 1, 1)
        return Own(schedule, axis, tuple((number / count, one) for number, one in enumerate(schedule.values)))
    return Own(schedule, axis)


def of_strengths(values: Mapping[str, Any]) -> Own:
    policy = chosen(values, "policy", get_args(StrengthPolicy), "hold last")
    return Own(parse_strengths(str(values.get("strengths", "")), policy), None)


def chosen(values: Mapping[str, Any], name: str, options: Sequence[Any], default: Any = None) -> Any:
    value = values.get(name, default or options[0])
    if value not in options:
        raise ValueError(
            f"{name} is {str(value)[:40]!r}, but one of {', '.join(options)} was expected; choose it again."
        )
    return value


READERS: dict[str, Callable[[Mapping[str, Any]], Own]] = {
    "ControlComposerStrengthCurve": of_curve,
    "ControlComposerStrengthKeyframes": of_keyframes,
    "ControlComposerImageStrengths": of_strengths,
}


def schedule(question: dict[str, Any]) -> dict[str, Any]:
    """From the schedule nodes of a row, the asking one last, and the sampler that they feed, to what the page shows.

    Question: `chain`, each with `type` and `values`; `sampler`, `sigmas` (nodes or null), `model` (the nodes that the model comes through,
    the sampler's nearest first); `pictures`, the size of the batch or null. Answer: `axis` of the node's own; `broken`, whether a node before it cannot be read; `line` and `marks` over it, as
    place and strength; `product`, the same with all nodes of the row, where they share the axis; `steps`, each with `step` (from 1), `place`
    on the axis, `percent`, `own` and `strength` (of all), null where not known; `run`, what was assumed of the sampler; `pictures`, factors.
    Raises ValueError with the sentence of the node's settings.
    """
    chain = chain_of(question)
    own = READERS[chain[-1]["type"]](chain[-1]["values"])
    before, broken = [], False
    for node in chain[:-1]:
        try:
            before.append(READERS[node["type"]](node["values"]))
        except (KeyError, TypeError, ValueError):
            broken = True  # A row is shown at that node as what it is there.
    owns = [*before, own]
    whole = reduce(mul, (one.schedule for one in owns))
    noise = noise_of(question.get("model") or [])
    sampler = question.get("sampler")
    steps = steps_of(sampler, question.get("sigmas"), noise) if sampler else None
    axes = {one.axis for one in owns if one.axis}
    answer: dict[str, Any] = {
        "axis": own.axis,
        "line": [],
        "marks": own.marks,
        "product": [],
        "steps": [],
        "run": None,
        "broken": broken,
    }
    if own.axis:
        answer["line"] = line(own.schedule, own.marks)
        if before and not broken and len(axes) == 1:
            answer["product"] = line(whole, tuple(mark for one in owns for mark in one.marks))
    if steps is not None and sampler is not None:
        answer["run"] = {"sampler": sampler["type"], **told(steps, noise, question.get("model") or [])}
        if axes:
            answer["steps"] = rows(steps, noise, owns, whole, broken)
    if own.axis is None or any(one.axis is None for one in owns):
        answer |= pictures(own, whole if not broken else own.schedule, question.get("pictures"))
    return answer


def chain_of(question: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Raises ValueError."""
    chain: Any = question.get("chain")
    nodes = [*chain, question.get("sampler")] if isinstance(chain, list) and chain else [0]
    if not all(one is None or (isinstance(one, dict) and isinstance(one.get("values"), dict)) for one in nodes):
        found = "is not made of nodes"
    elif chain[-1] is None or chain[-1].get("type") not in READERS:
        found = "does not end with a schedule node of this pack"
    else:
        return list(chain)
    raise ValueError(
        f'chain of the question about schedules {found}, but a list such as [{{"type": "{next(iter(READERS))}", "values": {{}}}}] was expected; '
        "send one."
    )


def line(one: Schedule, marks: Sequence[Mark]) -> list[Mark]:
    """A schedule over its axis, with both sides of what may be jumps."""
    jumps = (place for mark, _ in marks for place in (mark - 2 * TOLERANCE, mark))
    places = sorted({number / PLACES for number in range(PLACES + 1)} | {place for place in jumps if 0 <= place <= 1})
    return [(place, one(Moment(place, place))) for place in places]


def rows(steps: Steps, noise: Noise | None, owns: Sequence[Own], whole: Schedule, broken: bool) -> list[dict[str, Any]]:
    """The values at the beginning of each step, as the sampler will ask for them; none where an axis is asked for that is not known."""
    moments = (
        [Moments(noise.model_sampling.percent_to_sigma, steps.sigmas).at(sigma) for sigma in steps.sigmas[:-1]]
        if steps.sigmas and noise is not None
        else [Moment(math.nan, number / steps.count) for number in range(steps.count)]
    )
    own = owns[-1]
    found = []
    for number, moment in enumerate(moments, 1):
        known = not math.isnan(moment.percent)
        at = None if own.axis is None or not (known or own.axis == "step") else own.schedule(moment)
        together = all(known or one.axis != "percent" for one in owns) and not broken
        found.append(
            {
                "step": number,
                "place": moment.on(own.axis) if own.axis and at is not None else None,
                "percent": moment.percent if known else None,
                "own": at,
                "strength": whole(moment) if together else None,
            }
        )
    return found if any(one["own"] is not None or one["strength"] is not None for one in found) else []


def told(steps: Steps, noise: Noise | None, model: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What was taken for the run: `noise` is "file", "world" or "assumed", empty where no percent is known."""
    known = bool(steps.sigmas) and noise is not None
    world = bool(model) and model[-1]["type"] == DEMO_WORLD
    source = noise.source if noise is not None else ""
    return {
        "steps": steps.count,
        "scheduler": steps.scheduler,
        "noise": "" if not known else "file" if source else "world" if world else "assumed",
        "file": source,
    }


def pictures(own: Own, whole: Schedule, batch: Any) -> dict[str, Any]:
    """The factor of each picture: of the batch where its size is known, or else of one that shows the policy."""
    refused = ""
    if isinstance(batch, int) and 0 < batch <= LARGEST:
        try:
            factors = whole.pictures(batch)
            return {"pictures": factors[:PICTURES_SHOWN], "batch": batch}
        except ValueError as refusal:
            refused = str(refusal)
    strengths = own.schedule
    if isinstance(strengths, NamedStrengths):
        count = max(last for _, last, _ in strengths.spans) + 1
    elif isinstance(strengths, ImageStrengths):
        given = len(strengths.values)
        count = given if strengths.policy == "error" and given > 1 else max(4, 2 * given)
    else:
        count = 0
    shown = strengths.pictures(count)[:PICTURES_SHOWN] if 0 < count <= LARGEST else ()
    return {"pictures": shown, "refused": refused}
