"""The inputs of a layer for presets, and what they make of its own settings."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..residuals.layer_preset import LayerPreset, Settings, under
from ..residuals.preset_error import PresetError, check_keys, nearest
from ..residuals.preset_schedules import Curve, Curves
from ..residuals.schedules import Schedule
from ..residuals.shipped_presets import BY_NAME
from ..residuals.weights import BlockWeights, Flat
from .schedule import read_curve

ControlPreset = io.Custom("CONTROL_PRESET")

NONE = "none"
INTERPOLATIONS = {"LinearCurve": "linear", "MonotoneCubicCurve": "monotone_cubic"}
"""The host's curves by their classes, and what its curve editor calls them."""


def preset_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "preset",
            options=[NONE, *BY_NAME],
            default=NONE,
            optional=True,
            tooltip="Published settings by source, condition and base. They multiply with the layer's own: strength, balance, weights and schedule by "
            "each other, and of the ranges what both have in common. With a layer as it is at first, the preset acts as it is.",
        ),
        ControlPreset.Input(
            "own_preset",
            optional=True,
            tooltip="From Layer Preset. It multiplies with the layer's own settings and with the preset chosen here, as these do with each other.",
        ),
    ]


def settings_under(
    strength: float,
    start_percent: float,
    end_percent: float,
    uncond_strength: float,
    weights: BlockWeights | None,
    schedule: Schedule | None,
    preset: str = NONE,
    own_preset: LayerPreset | None = None,
) -> Settings:
    """A layer's own settings multiplied with its presets. Raises PresetError."""
    own = Settings(strength, start_percent, end_percent, uncond_strength, weights or Flat(), schedule)
    return under(own, (shipped(preset), own_preset))


def shipped(name: str) -> LayerPreset | None:
    """The preset of this name; None for "none". Raises PresetError."""
    if name != NONE and name not in BY_NAME:
        raise PresetError(
            f'preset is "{name}", but this version of Control Composer has none of this name; choose another, such as "{nearest(name, BY_NAME)}".'
        )
    return BY_NAME.get(name)


def curve_from(value: Any) -> Curve:
    """The host's curve from what its editor keeps. Raises ValueError."""
    if isinstance(value, dict):
        check_keys(value, ("points", "interpolation"), '"curve" of the preset')
        interpolation = value.get("interpolation", "monotone_cubic")
        if interpolation not in INTERPOLATIONS.values():
            raise PresetError(
                f'The preset has "{str(interpolation)[:40]}" as the interpolation of its curve, but it is one of '
                f"{', '.join(INTERPOLATIONS.values())}; write one of these."
            )
    curve: Curve = read_curve(value).interp
    return curve


def curve_json(curve: Curve) -> dict[str, Any]:
    """What `curve_from` reads back as a curve that acts alike. Raises PresetError for a curve that no editor has drawn."""
    owner = getattr(curve, "__self__", None)
    interpolation = INTERPOLATIONS.get(type(owner).__name__)
    if owner is None or interpolation is None:
        raise PresetError(
            f"The curve of the schedule is of a kind without a written form ({type(owner or curve).__name__}), but a preset holds curves of points; "
            "connect Strength Curve."
        )
    return {"points": [[x, y] for x, y in owner.points], "interpolation": interpolation}


CURVES = Curves(curve_from, curve_json)
