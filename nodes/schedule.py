"""Menu section "schedule": the strength over the sampling and over the pictures of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

from comfy_api.latest import io

# ComfyUI 0.30 imports the two in a circle: comfy_api.input cannot come first.
# isort: split
from comfy_api.input import CurveInput

from ..residuals.moments import Axis
from ..residuals.schedule_images import StrengthPolicy, described
from ..residuals.schedule_text import parse_schedule, parse_strengths
from ..residuals.schedules import Between, CurveSchedule, Schedule, ScheduleError, table
from .text import show_text

StrengthSchedule = io.Custom("STRENGTH_SCHEDULE")

STEPS_SHOWN = 20
"""A node does not know how many steps the sampler will take; the description shows this many."""


def other_schedule() -> io.Input:
    """The input through which schedule nodes are connected in a row."""
    return StrengthSchedule.Input(
        "schedule",
        optional=True,
        tooltip="Another strength schedule; at each moment and for each picture the product of both acts.",
    )


def axis_input() -> io.Input:
    return io.Combo.Input(
        "axis",
        options=list(get_args(Axis)),
        default="percent",
        tooltip="What runs from 0 to 1. percent: the noise, from all to none, as start_percent and end_percent count it; an image-to-image run of "
        "denoise 0.4 begins at about 0.6, and schedulers such as karras pass the percents unevenly. step: the steps of the run, whatever "
        "its denoise and scheduler; step 5 of 20 is at 0.25, and the last step begins before 1.",
    )


def schedule_outputs() -> list[io.Output]:
    return [
        StrengthSchedule.Output(
            "schedule",
            display_name="schedule",
            tooltip="For the schedule input of a control, or of another schedule node.",
        ),
        io.String.Output(
            "description",
            display_name="description",
            tooltip="The factors that this node's own settings resolve to, as the node shows them.",
        ),
    ]


def result(node: type[io.ComfyNode], own: Schedule, schedule: Schedule | None, description: str) -> io.NodeOutput:
    show_text(node, description)
    return io.NodeOutput(own if schedule is None else schedule * own, description)


def over_time(axis: Axis, own: Schedule) -> str:
    return table(own, axis, STEPS_SHOWN if axis == "step" else 10)


class ControlComposerStrengthCurve(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerStrengthCurve",
            display_name="Strength Curve",
            category="Control Composer/schedule",
            description="Draws how strong a control is over the sampling: its beginning on the left, its end on the right.",
            search_aliases=[
                "schedule",
                "control weight over time",
                "controlnet strength curve",
                "timestep keyframe",
                "fade",
            ],
            inputs=[
                io.Curve.Input(
                    "curve",
                    default=[(0.0, 1.0), (1.0, 0.0)],
                    socketless=False,
                    tooltip="Click to add a point, drag it, right-click to remove it. The lower edge is 0, the upper edge is scale.",
                ),
                io.Float.Input(
                    "scale",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.01,
                    tooltip="The factor at the upper edge of the curve. It multiplies the control's own strength.",
                ),
                axis_input(),
                other_schedule(),
            ],
            hidden=[io.Hidden.unique_id],
            outputs=schedule_outputs(),
        )

    @classmethod
    def execute(
        cls, curve: Any, scale: float, axis: Axis = "percent", schedule: Schedule | None = None
    ) -> io.NodeOutput:
        own = curve_schedule(curve, scale, axis)
        return result(cls, own, schedule, over_time(axis, own))


def curve_schedule(curve: Any, scale: float, axis: Axis) -> CurveSchedule:
    """What Strength Curve makes of its settings. Raises ScheduleError."""
    return CurveSchedule(read_curve(curve).interp, 0.0, scale, axis)


def read_curve(raw: Any) -> CurveInput:
    """The host's curve from what a widget or a link brings. Raises ScheduleError."""
    try:
        curve = CurveInput.from_raw(raw)
    except (KeyError, TypeError, ValueError):
        curve = None
    if (
        curve is None
        or not curve.points
        or not all(math.isfinite(number) for point in curve.points for number in point)
    ):
        raise ScheduleError(
            f"curve of Strength Curve is {str(raw)[:60]}, but an object with points was expected; draw a curve in the node, or write "
            '{"points": [[0, 1], [1, 0]], "interpolation": "linear"}.'
        )
    return curve


class ControlComposerStrengthKeyframes(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerStrengthKeyframes",
            display_name="Strength Keyframes",
            category="Control Composer/schedule",
            description="Writes down how strong a control is over the sampling: strength@position, with commas between them. Before the first "
            "keyframe its strength acts, after the last one its strength; between them the way from one to the next.",
            search_aliases=[
                "schedule",
                "timestep keyframe",
                "control weight over time",
                "strength list",
                "TimestepKeyframe",
                "TimestepKeyframeFromStrengthList",
                "TimestepKeyframeInterpolation",
                "float list",
                "prompt travel",
                "fade",
            ],
            inputs=[
                io.String.Input(
                    "keyframes",
                    default="1@0, 0@1",
                    multiline=True,
                    tooltip='strength@position, such as "0.2@0, 0.8@40% ease, 0@0.9". Behind a position: ease (slowly out of the one, slowly into '
                    "the other), ease-in (slow at first), ease-out (slow at last), hold (keeps the strength before and jumps here), or "
                    'nothing for a straight line. Or a plain list, such as "1, 0.5, 0", spread evenly from 0 to 1.',
                ),
                axis_input(),
                io.Combo.Input(
                    "between",
                    options=list(get_args(Between)),
                    default="hold",
                    advanced=True,
                    tooltip="For a plain list only. hold: each number acts for an equal share; on the step axis, as many numbers as steps are one "
                    "for each step. linear: straight lines from the first number at 0 to the last at 1.",
                ),
                other_schedule(),
            ],
            hidden=[io.Hidden.unique_id],
            outputs=schedule_outputs(),
        )

    @classmethod
    def validate_inputs(cls, keyframes: str | None) -> bool | str:
        """A typo is told before anything runs. A text that is linked (None) is read when it comes."""
        return keyframes is None or sentence_of(parse_schedule, keyframes)

    @classmethod
    def execute(
        cls, keyframes: str, axis: Axis = "percent", between: Between = "hold", schedule: Schedule | None = None
    ) -> io.NodeOutput:
        own = parse_schedule(keyframes, axis, between)
        return result(cls, own, schedule, over_time(axis, own))


class ControlComposerImageStrengths(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerImageStrengths",
            display_name="Image Strengths",
            category="Control Composer/schedule",
            description="Gives each picture of a batch, or each frame of a video, its own strength.",
            search_aliases=[
                "latent keyframe",
                "latent keyframe batched group",
                "LatentKeyframe",
                "LatentKeyframeTiming",
                "LatentKeyframeGroup",
                "LatentKeyframeBatchedGroup",
                "per image strength",
                "batch strength",
                "frame strength",
                "schedule",
            ],
            inputs=[
                io.String.Input(
                    "strengths",
                    default="1",
                    multiline=True,
                    tooltip='One factor per picture, such as "1, 0.5, 0"; or pictures, counted from 0, and their factor, such as "0-3: 0.5, 4: 0", '
                    "where the others keep 1. More numbers than pictures are refused.",
                ),
                io.Combo.Input(
                    "policy",
                    options=list(get_args(StrengthPolicy)),
                    default="hold last",
                    tooltip="For a list that is shorter than the batch, shown for 1, 0 and four pictures. cycle starts over: 1, 0, 1, 0. repeat holds "
                    "each for an equal share: 1, 1, 0, 0. hold last stays on the last: 1, 0, 0, 0. spread goes evenly from the first to the "
                    "last: 1, 0.667, 0.333, 0. error refuses.",
                ),
                other_schedule(),
            ],
            hidden=[io.Hidden.unique_id],
            outputs=schedule_outputs(),
        )

    @classmethod
    def validate_inputs(cls, strengths: str | None) -> bool | str:
        """As that of Strength Keyframes."""
        return strengths is None or sentence_of(parse_strengths, strengths)

    @classmethod
    def execute(
        cls, strengths: str, policy: StrengthPolicy = "hold last", schedule: Schedule | None = None
    ) -> io.NodeOutput:
        own = parse_strengths(strengths, policy)
        return result(cls, own, schedule, described(own))


def sentence_of(parse: Callable[[str], object], text: str) -> Literal[True] | str:
    """What `parse` has to say against `text`, or True."""
    try:
        parse(text)
    except ValueError as refusal:
        return str(refusal)
    return True


NODES: list[type[io.ComfyNode]] = [
    ControlComposerStrengthCurve,
    ControlComposerStrengthKeyframes,
    ControlComposerImageStrengths,
]
