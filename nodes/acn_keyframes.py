"""In place of Advanced-ControlNet's timestep keyframes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..residuals.interpolation import WAYS, between
from ..residuals.keyframe_weights import KeyframeWeights
from ..residuals.timestep_keyframes import LatentStrengths, Timeline, TimestepKeyframe, with_keyframes
from .acn_types import (
    KeyframedWeights,
    Latents,
    list_of,
    number,
    percent,
    printing,
    schema,
    timesteps_input,
    timesteps_output,
)

MOST_STEPS = 2**53 - 1


def what_acts(guarantee: bool = False) -> list[io.Input]:
    """What a keyframe sets beside its start and strength."""
    return [
        KeyframedWeights.Input(
            "cn_weights", optional=True, tooltip="From a weights node; without, those of the keyframe before."
        ),
        Latents.Input(
            "latent_keyframe", optional=True, tooltip="Strengths of pictures; without, those of the keyframe before."
        ),
        number("null_latent_kf_strength", 0.0, "Strength of the pictures that latent_keyframe does not name."),
        io.Boolean.Input(
            "inherit_missing",
            default=True,
            optional=True,
            tooltip="On: weights, strengths of pictures and mask that are not connected stay as the keyframe before had them. Off: there are none.",
        ),
        *(
            [
                io.Int.Input(
                    "guarantee_steps",
                    default=1,
                    min=0,
                    max=MOST_STEPS,
                    optional=True,
                    tooltip="For so many steps it acts even where the next keyframe has begun; 0 lets it be passed over.",
                )
            ]
            if guarantee
            else []
        ),
        io.Mask.Input(
            "mask_optional", optional=True, tooltip="Where the control acts; without, as the keyframe before had it."
        ),
    ]


def spread(
    timeline: Timeline | None, starts: Iterable[float], strengths: Iterable[float], settings: dict[str, Any]
) -> io.NodeOutput:
    """Keyframes one after the other, of which only the first is sure of a step."""
    frames = [
        TimestepKeyframe(start, strength, guarantee_steps=0 if index else 1, **settings)
        for index, (start, strength) in enumerate(zip(starts, strengths, strict=True))
    ]
    return io.NodeOutput(with_keyframes(timeline, frames))


def settings(
    cn_weights: KeyframeWeights | None,
    latent_keyframe: LatentStrengths | None,
    null_latent_kf_strength: float,
    inherit_missing: bool,
    mask_optional: Tensor | None,
) -> dict[str, Any]:
    return {
        "weights": cn_weights,
        "latents": latent_keyframe,
        "null_latent_strength": null_latent_kf_strength,
        "inherit_missing": inherit_missing,
        "mask": mask_optional,
    }


class ControlComposerAcnTimestepKeyframe(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "TimestepKeyframe",
            "Timestep Keyframe",
            "Strength Keyframes",
            [
                percent("start_percent", 0.0, "From where on these settings act."),
                timesteps_input("prev_timestep_kf"),
                number("strength", 1.0, "Multiplies the strength of the Apply node, until the next keyframe."),
                *what_acts(guarantee=True),
            ],
            [timesteps_output()],
        )

    @classmethod
    def execute(
        cls,
        start_percent: float,
        prev_timestep_kf: Timeline | None = None,
        strength: float = 1.0,
        cn_weights: KeyframeWeights | None = None,
        latent_keyframe: LatentStrengths | None = None,
        null_latent_kf_strength: float = 0.0,
        inherit_missing: bool = True,
        guarantee_steps: int = 1,
        mask_optional: Tensor | None = None,
    ) -> io.NodeOutput:
        shared = settings(cn_weights, latent_keyframe, null_latent_kf_strength, inherit_missing, mask_optional)
        frame = TimestepKeyframe(start_percent, strength, guarantee_steps=guarantee_steps, **shared)
        return io.NodeOutput(with_keyframes(prev_timestep_kf, [frame]))


class ControlComposerAcnTimestepInterpolation(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "TimestepInterpolation",
            "Timestep Keyframe Interp.",
            "Strength Keyframes or Strength Curve",
            [
                percent("start_percent", 0.0, "Where the first keyframe begins."),
                percent("end_percent", 1.0, "Where the last keyframe begins."),
                number("strength_start", 1.0, "Strength of the first keyframe.", optional=False),
                number("strength_end", 1.0, "Strength of the last keyframe.", optional=False),
                io.Combo.Input("interpolation", options=list(WAYS), tooltip="The way from the one to the other."),
                io.Int.Input("intervals", default=50, min=2, max=100, tooltip="How many keyframes."),
                timesteps_input("prev_timestep_kf"),
                *what_acts(),
                printing(),
            ],
            [timesteps_output()],
        )

    @classmethod
    def execute(
        cls,
        start_percent: float,
        end_percent: float,
        strength_start: float,
        strength_end: float,
        interpolation: str,
        intervals: int,
        prev_timestep_kf: Timeline | None = None,
        cn_weights: KeyframeWeights | None = None,
        latent_keyframe: LatentStrengths | None = None,
        null_latent_kf_strength: float = 0.0,
        inherit_missing: bool = True,
        mask_optional: Tensor | None = None,
        print_keyframes: bool = False,
    ) -> io.NodeOutput:
        return spread(
            prev_timestep_kf,
            between(start_percent, end_percent, intervals),
            between(strength_start, strength_end, intervals, interpolation),
            settings(cn_weights, latent_keyframe, null_latent_kf_strength, inherit_missing, mask_optional),
        )


class ControlComposerAcnTimestepList(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "TimestepList",
            "Timestep Keyframe From List",
            "Strength Keyframes, which takes a plain list",
            [
                io.Float.Input("float_strengths", force_input=True, tooltip="A list of strengths, or one."),
                percent("start_percent", 0.0, "Where the first keyframe begins."),
                percent("end_percent", 1.0, "Where the last keyframe begins."),
                timesteps_input("prev_timestep_kf"),
                *what_acts(),
                printing(),
            ],
            [timesteps_output()],
        )

    @classmethod
    def execute(
        cls,
        float_strengths: Any,
        start_percent: float,
        end_percent: float,
        prev_timestep_kf: Timeline | None = None,
        cn_weights: KeyframeWeights | None = None,
        latent_keyframe: LatentStrengths | None = None,
        null_latent_kf_strength: float = 0.0,
        inherit_missing: bool = True,
        mask_optional: Tensor | None = None,
        print_keyframes: bool = False,
    ) -> io.NodeOutput:
        strengths = list_of(float_strengths, "float_strengths of Timestep Keyframe From List")
        return spread(
            prev_timestep_kf,
            between(start_percent, end_percent, len(strengths)),
            strengths,
            settings(cn_weights, latent_keyframe, null_latent_kf_strength, inherit_missing, mask_optional),
        )


NODES: list[type[io.ComfyNode]] = [
    ControlComposerAcnTimestepKeyframe,
    ControlComposerAcnTimestepInterpolation,
    ControlComposerAcnTimestepList,
]
