"""In place of Advanced-ControlNet's latent keyframes."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..residuals.interpolation import WAYS, between
from ..residuals.latent_text import parse_latents
from ..residuals.timestep_keyframes import LatentStrengths
from .acn_types import Latents, latents_output, list_of, number, printing, schema

FURTHEST = 2**53 - 1
INSTEAD = "Image Strengths"


def before() -> io.Input:
    return Latents.Input("prev_latent_kf", optional=True, tooltip="Other strengths of pictures.")


def place(name: str, tooltip: str) -> io.Input:
    return io.Int.Input(
        name,
        default=0,
        min=-FURTHEST,
        max=FURTHEST,
        tooltip=f"{tooltip} Counted from 0, or back from the last, which is -1.",
    )


class ControlComposerAcnLatentKeyframe(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LatentKeyframe",
            "Latent Keyframe",
            INSTEAD,
            [place("batch_index", "The picture."), number("strength", 1.0, "Its strength.", optional=False), before()],
            [latents_output()],
        )

    @classmethod
    def execute(cls, batch_index: int, strength: float, prev_latent_kf: LatentStrengths | None = None) -> io.NodeOutput:
        return io.NodeOutput(LatentStrengths(((batch_index, strength),)).over(prev_latent_kf))


class ControlComposerAcnLatentGroup(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LatentGroup",
            "Latent Keyframe Group",
            INSTEAD,
            [
                io.String.Input(
                    "index_strengths",
                    default="",
                    multiline=True,
                    tooltip='Pictures and their strengths, such as "0, 4=0.5, 8:12=0.2": 8:12 are the pictures 8 to 11, and what has no strength has 1.',
                ),
                before(),
                io.Latent.Input(
                    "latent_optional", optional=True, tooltip="The batch, which lets pictures count back from its end."
                ),
                printing(),
            ],
            [latents_output()],
        )

    @classmethod
    def execute(
        cls,
        index_strengths: str,
        prev_latent_kf: LatentStrengths | None = None,
        latent_optional: dict[str, Any] | None = None,
        print_keyframes: bool = False,
    ) -> io.NodeOutput:
        count = None if latent_optional is None else int(latent_optional["samples"].shape[0])
        return io.NodeOutput(over(prev_latent_kf, LatentStrengths(parse_latents(index_strengths, count))))


class ControlComposerAcnLatentInterpolation(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LatentInterpolation",
            "Latent Keyframe Interp.",
            INSTEAD,
            [
                place("batch_index_from", "The first picture."),
                place("batch_index_to_excl", "The picture after the last."),
                number("strength_from", 1.0, "Strength of the first.", optional=False),
                number("strength_to", 1.0, "Strength of the last.", optional=False),
                io.Combo.Input("interpolation", options=list(WAYS), tooltip="The way from the one to the other."),
                before(),
                printing(),
            ],
            [latents_output()],
            ("LatentKeyframeTiming",),
        )

    @classmethod
    def execute(
        cls,
        batch_index_from: int,
        batch_index_to_excl: int,
        strength_from: float,
        strength_to: float,
        interpolation: str,
        prev_latent_kf: LatentStrengths | None = None,
        print_keyframes: bool = False,
    ) -> io.NodeOutput:
        first, end = batch_index_from, batch_index_to_excl
        if first > end or (first < 0 <= end):
            raise ValueError(
                f"Latent Keyframe Interp. goes from picture {first} to before {end}, but pictures rise and count from one side only; "
                "correct the two numbers."
            )
        strengths = between(strength_from, strength_to, end - first, interpolation)
        own = LatentStrengths(tuple(zip(range(first, end), strengths, strict=True)))
        return io.NodeOutput(over(prev_latent_kf, own))


class ControlComposerAcnLatentList(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LatentList",
            "Latent Keyframe From List",
            INSTEAD,
            [
                io.Float.Input(
                    "float_strengths",
                    force_input=True,
                    tooltip="A list: one strength for each picture. A single number names none of them.",
                ),
                before(),
                printing(),
            ],
            [latents_output()],
            ("LatentKeyframeBatchedGroup",),
        )

    @classmethod
    def execute(
        cls, float_strengths: Any, prev_latent_kf: LatentStrengths | None = None, print_keyframes: bool = False
    ) -> io.NodeOutput:
        single = isinstance(float_strengths, (int, float))
        strengths = () if single else list_of(float_strengths, "float_strengths of Latent Keyframe From List")
        return io.NodeOutput(over(prev_latent_kf, LatentStrengths(tuple(enumerate(strengths)))))


def over(before: LatentStrengths | None, own: LatentStrengths) -> LatentStrengths:
    """In groups, what comes before wins."""
    return own if before is None else before.over(own)


NODES: list[type[io.ComfyNode]] = [
    ControlComposerAcnLatentKeyframe,
    ControlComposerAcnLatentGroup,
    ControlComposerAcnLatentInterpolation,
    ControlComposerAcnLatentList,
]
