"""In place of Advanced-ControlNet's Apply nodes."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..control.keyframed import Keyframing, apply_keyframed
from ..residuals.keyframe_weights import KeyframeWeights
from ..residuals.timestep_keyframes import LatentStrengths, Timeline
from .acn_reference import UnboundReference
from .acn_types import KeyframedWeights, Latents, number, percent, schema, timesteps_input


def condition() -> list[io.Input]:
    return [
        io.ControlNet.Input("control_net", tooltip="From a Load node, ours, a stock one or one of that pack's."),
        io.Image.Input(
            "image", tooltip="The hint. Of several each steers its own latent, and the last one those that are left."
        ),
        number("strength", 1.0, "Multiplies what the control adds.", step=0.01, optional=False),
        percent("start_percent", 0.0, "From where on the control acts."),
        percent("end_percent", 1.0, "Until where the control acts."),
        io.Mask.Input("mask_optional", optional=True, tooltip="Where the control acts; it covers the hint's picture."),
        timesteps_input(),
        Latents.Input(
            "latent_kf_override", optional=True, tooltip="Strengths of pictures, in place of those of all keyframes."
        ),
        KeyframedWeights.Input(
            "weights_override", optional=True, tooltip="Weights, in place of those of all keyframes."
        ),
        io.Model.Input(
            "model_optional",
            optional=True,
            tooltip="It goes on unchanged; a Reference ControlNet learns its model from it.",
        ),
        io.Vae.Input("vae_optional", optional=True, tooltip="For controls that read latents."),
    ]


def model_output() -> io.Output:
    return io.Model.Output("model_opt", display_name="model_opt", tooltip="model_optional as it came.")


def applied(conditionings: tuple[Any, ...], to_uncond: bool, values: dict[str, Any]) -> tuple[Any, ...]:
    control_net = values["control_net"]
    if isinstance(control_net, UnboundReference):
        control_net = control_net.bound(values.get("model_optional"))
    weights: KeyframeWeights | None = values.get("weights_override")
    latents: LatentStrengths | None = values.get("latent_kf_override")
    timeline: Timeline | None = values.get("timestep_kf")
    return apply_keyframed(
        conditionings,
        control_net,
        values["image"],
        values["strength"],
        values["start_percent"],
        values["end_percent"],
        values.get("mask_optional"),
        values.get("vae_optional"),
        Keyframing(timeline, weights, latents),
        to_uncond=to_uncond,
    )


class ControlComposerAcnApply(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Apply",
            "Apply Advanced ControlNet",
            "Apply Control",
            [
                io.Conditioning.Input("positive", tooltip="What the picture should show."),
                io.Conditioning.Input("negative", tooltip="What it should not show."),
                *condition(),
            ],
            [
                io.Conditioning.Output("positive", display_name="positive", tooltip="With the control."),
                io.Conditioning.Output("negative", display_name="negative", tooltip="With the control."),
                model_output(),
            ],
            ("ACN_AdvancedControlNetApply",),
        )

    @classmethod
    def execute(cls, positive: Any, negative: Any, **values: Any) -> io.NodeOutput:
        return io.NodeOutput(*applied((positive, negative), False, values), values.get("model_optional"))


class ControlComposerAcnApplySingle(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "ApplySingle",
            "Apply Advanced ControlNet(1)",
            "Apply Control",
            [
                io.Conditioning.Input(
                    "conditioning",
                    tooltip="What the picture should show; the negative conditioning gets the control too.",
                ),
                *condition(),
            ],
            [
                io.Conditioning.Output("CONDITIONING", display_name="CONDITIONING", tooltip="With the control."),
                model_output(),
            ],
            ("ACN_AdvancedControlNetApplySingle",),
        )

    @classmethod
    def execute(cls, conditioning: Any, **values: Any) -> io.NodeOutput:
        return io.NodeOutput(*applied((conditioning,), True, values), values.get("model_optional"))


NODES: list[type[io.ComfyNode]] = [ControlComposerAcnApply, ControlComposerAcnApplySingle]
