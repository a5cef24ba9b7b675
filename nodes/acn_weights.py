"""In place of Advanced-ControlNet's weights nodes."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..residuals.keyframe_weights import FeatureWeights, KeyframeWeights, MiddleTimes, NumberedWeights, ScaledSoft
from ..residuals.timestep_keyframes import TimestepKeyframe
from ..residuals.weights import BlockWeights, Flat
from .acn_types import Extras, KeyframedWeights, Timesteps, number, schema

SOFT = tuple(0.825**power for power in range(12, -1, -1))
SOFT_FEATURES = (0.25, 0.62, 0.825, 1.0)
FLIPPED = "The first number for the last block and so on, as versions of that pack before September 2024 did; later ones did nothing."


def shared_inputs(flip: bool = False) -> list[io.Input]:
    return [
        *([io.Boolean.Input("flip_weights", default=False, optional=True, tooltip=FLIPPED)] if flip else []),
        number(
            "uncond_multiplier",
            1.0,
            "Factor for the unconditional branch, the one with the negative prompt. 0 steers the conditional branch only.",
            most=1.0,
            step=0.01,
        ),
        Extras.Input("cn_extras", optional=True, tooltip="From Middle Weight Extras."),
    ]


def outputs() -> list[io.Output]:
    return [
        KeyframedWeights.Output(
            "CN_WEIGHTS", display_name="CN_WEIGHTS", tooltip="For a Timestep Keyframe, or for weights_override."
        ),
        Timesteps.Output(
            "TK_SHORTCUT",
            display_name="TK_SHORTCUT",
            tooltip="One timestep keyframe that has these weights from the start.",
        ),
    ]


def result(
    blocks: BlockWeights,
    uncond_multiplier: float = 1.0,
    cn_extras: float | None = None,
    base_mask: Tensor | None = None,
) -> io.NodeOutput:
    """`cn_extras` is the factor of the middle block."""
    weighed = blocks if cn_extras is None or cn_extras == 1.0 else blocks * MiddleTimes(cn_extras)
    weights = KeyframeWeights(weighed, uncond_multiplier, base_mask)
    return io.NodeOutput(weights, (TimestepKeyframe(weights=weights),))


class ControlComposerAcnDefaultWeights(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        extras = shared_inputs()[-1:]
        return schema(
            "DefaultWeights", "Default Weights", "no weights node at all", extras, outputs(), ("force default weights",)
        )

    @classmethod
    def execute(cls, cn_extras: float | None = None) -> io.NodeOutput:
        return result(Flat(), cn_extras=cn_extras)


class ControlComposerAcnScaledSoftWeights(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "ScaledSoftWeights",
            "Scaled Soft Weights",
            "Soft Weights",
            [
                number(
                    "base_multiplier",
                    0.825,
                    "The ladder's base: encoder block i of n gets its power n - i, the middle 1. A T2I-Adapter's four features get the powers 7, 2, 1, 0.",
                    most=1.0,
                    optional=False,
                ),
                *shared_inputs(flip=True),
            ],
            outputs(),
            ("ScaledSoftControlNetWeights",),
        )

    @classmethod
    def execute(
        cls,
        base_multiplier: float,
        flip_weights: bool = False,
        uncond_multiplier: float = 1.0,
        cn_extras: float | None = None,
    ) -> io.NodeOutput:
        return result(ScaledSoft(base_multiplier, flip_weights), uncond_multiplier, cn_extras)


class ControlComposerAcnScaledSoftMaskedWeights(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "ScaledSoftMaskedWeights",
            "Scaled Soft Masked Weights",
            "Soft Weights and a mask",
            [
                io.Mask.Input(
                    "mask", tooltip="The ladder's base at each place, from its darkest to its brightest pixel."
                ),
                number("min_base_multiplier", 0.0, "The base where the mask is darkest.", most=1.0, optional=False),
                number("max_base_multiplier", 1.0, "The base where the mask is brightest.", most=1.0, optional=False),
                *shared_inputs(),
            ],
            outputs(),
            ("ScaledSoftMaskedUniversalWeights",),
        )

    @classmethod
    def execute(
        cls,
        mask: Tensor,
        min_base_multiplier: float,
        max_base_multiplier: float,
        uncond_multiplier: float = 1.0,
        cn_extras: float | None = None,
    ) -> io.NodeOutput:
        low, high = mask.min(), mask.max()
        share = (mask - low) / (high - low) if high > low else mask.new_ones(mask.shape)
        base = share * (max_base_multiplier - min_base_multiplier) + min_base_multiplier
        return result(Flat(), uncond_multiplier, cn_extras, base)


def of_controlnet(name: str, was: str, defaults: tuple[float, ...]) -> type[io.ComfyNode]:
    """One number for each block of SD1.5: output_0 to output_11 and middle_0."""
    names = [*(f"output_{index}" for index in range(12)), "middle_0"]

    class Node(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            inputs = [
                number(
                    each,
                    default,
                    "Factor of the middle block."
                    if each == "middle_0"
                    else f"Factor of encoder block {each[7:]}, counted from the finest.",
                    optional=False,
                )
                for each, default in zip(names, defaults, strict=True)
            ]
            return schema(name, was, "Block Weights", [*inputs, *shared_inputs(flip=True)], outputs())

        @classmethod
        def execute(cls, **values: Any) -> io.NodeOutput:
            numbers = [values.pop(each) for each in names]
            if values.pop("flip_weights", False):
                numbers.reverse()
            return result(NumberedWeights(tuple(numbers[:-1]), numbers[-1]), **values)

    Node.__name__ = Node.__qualname__ = f"ControlComposerAcn{name}"
    return Node


def of_adapter(name: str, was: str, defaults: tuple[float, ...]) -> type[io.ComfyNode]:
    """One number for each feature of a T2I-Adapter: input_0 to input_3."""
    names = [f"input_{index}" for index in range(4)]

    class Node(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            inputs = [
                number(each, default, f"Factor of feature {each[6:]}, counted from the finest.", optional=False)
                for each, default in zip(names, defaults, strict=True)
            ]
            return schema(name, was, "Block Weights", [*inputs, *shared_inputs(flip=True)], outputs())

        @classmethod
        def execute(cls, **values: Any) -> io.NodeOutput:
            numbers = [values.pop(each) for each in names]
            if values.pop("flip_weights", False):
                numbers.reverse()
            return result(FeatureWeights(tuple(numbers)), **values)

    Node.__name__ = Node.__qualname__ = f"ControlComposerAcn{name}"
    return Node


class ControlComposerAcnMiddleExtras(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "MiddleExtras",
            "Middle Weight Extras",
            "Block Weights",
            [
                number("middle_mult", 1.0, "One more factor for the middle block.", optional=False),
                Extras.Input(
                    "cn_extras", optional=True, tooltip="Other extras; this node's factor takes the place of theirs."
                ),
            ],
            [Extras.Output("cn_extras", display_name="cn_extras", tooltip="For the cn_extras of a weights node.")],
        )

    @classmethod
    def execute(cls, middle_mult: float, cn_extras: float | None = None) -> io.NodeOutput:
        return io.NodeOutput(middle_mult)


NODES: list[type[io.ComfyNode]] = [
    ControlComposerAcnDefaultWeights,
    ControlComposerAcnScaledSoftWeights,
    ControlComposerAcnScaledSoftMaskedWeights,
    of_controlnet("SoftControlNetWeights", "ControlNet Soft Weights", SOFT),
    of_controlnet("CustomControlNetWeights", "ControlNet Custom Weights", (1.0,) * 13),
    of_adapter("SoftAdapterWeights", "T2IAdapter Soft Weights", SOFT_FEATURES),
    of_adapter("CustomAdapterWeights", "T2IAdapter Custom Weights", (1.0,) * 4),
    ControlComposerAcnMiddleExtras,
]
