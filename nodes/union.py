"""Menu section "apply", for ControlNet Union and ProMax: several kinds of hint in one pass of the network."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..checkpoints.families.union import UNION_TYPES
from ..control.layer import Beside
from ..control.placing import Fill, Sizing
from ..control.reuse import Reuse
from ..control.union_layer import TypedPicture, union_layer_of
from ..residuals.batches import BatchPolicy
from ..residuals.layer_preset import LayerPreset
from ..residuals.schedules import Schedule
from ..residuals.weights import BlockWeights
from .apply import ControlLayer, condition_inputs, layer_inputs
from .beside_input import beside_input
from .preset_inputs import NONE, preset_inputs, settings_under
from .reuse_inputs import reuse_inputs

UnionHint = io.Custom("UNION_HINT")

OWN_INPUTS = ("control_net", "image", "vae")
"""Inputs of Control Layer that are others here, or that no union network reads."""


class ControlComposerUnionHint(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerUnionHint",
            display_name="Union Hint (Control Composer)",
            category="Control Composer/apply",
            description="One picture with its type and strength, for Union Control Layer: connect as many there as the picture needs, each of another "
            "type.",
            search_aliases=[
                "controlnet union type",
                "set union controlnet type",
                "controlnet++ input",
                "promax",
                "SetUnionControlNetType",
                "ACN_ControlNet++InputNode",
            ],
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="The hint: edges, depth, a pose, of the chosen type. Each hint may have a size of its own; one picture steers all latents, "
                    "of several each steers its own. For repaint, what is to be painted anew is black.",
                ),
                io.Combo.Input(
                    "union_type",
                    options=list(UNION_TYPES),
                    tooltip="What the picture shows. The first ControlNet Union knows the types up to segment, ProMax also tile and repaint; the "
                    "description of Load ControlNet lists those of the file.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="The strength of this picture among the others of the layer. At 0 it is left out.",
                ),
            ],
            outputs=[UnionHint.Output("hint", display_name="hint", tooltip="For Union Control Layer.")],
        )

    @classmethod
    def execute(cls, image: Tensor, union_type: str, strength: float = 1.0) -> io.NodeOutput:
        return io.NodeOutput(TypedPicture(image, union_type, strength))


class ControlComposerUnionLayer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerUnionLayer",
            display_name="Union Control Layer (Control Composer)",
            category="Control Composer/apply",
            description="One layer of a ControlNet Union or ProMax for Compose Controls that reads several pictures of different types in one pass of the "
            "network: a second picture costs no second evaluation. A new input appears as soon as the last one is connected.",
            search_aliases=[
                "controlnet union",
                "controlnet promax",
                "controlnet++",
                "xinsir union",
                "multi controlnet union",
                "ACN_ControlNet++LoaderAdvanced",
            ],
            inputs=[
                io.ControlNet.Input(
                    "control_net",
                    tooltip="A ControlNet Union or ProMax, from Load ControlNet, ours or the stock one. A type chosen there does not matter here.",
                ),
                io.Autogrow.Input(
                    "hints",
                    template=io.Autogrow.TemplatePrefix(
                        UnionHint.Input("hint", tooltip="From Union Hint."),
                        prefix="hint",
                        min=1,
                        max=len(UNION_TYPES),
                    ),
                    tooltip="Union Hint nodes, each of another type. A mask covers the first of them.",
                ),
                *(item for item in condition_inputs() if item.id not in OWN_INPUTS),
                *layer_inputs(),
                *preset_inputs(),
                *reuse_inputs(),
                beside_input(),
            ],
            outputs=[ControlLayer.Output("layer", display_name="layer", tooltip="For Compose Controls.")],
        )

    @classmethod
    def execute(
        cls,
        control_net: Any,
        hints: dict[str, TypedPicture | None],
        strength: float,
        start_percent: float,
        end_percent: float,
        uncond_strength: float,
        weights: BlockWeights | None = None,
        schedule: Schedule | None = None,
        mask: Tensor | None = None,
        enabled: bool = True,
        invert_mask: bool = False,
        feather_mask: float = 0.0,
        sizing: Sizing = "crop",
        fill: Fill = "black",
        batch: BatchPolicy = "cycle",
        preset: str = NONE,
        own_preset: LayerPreset | None = None,
        every: int = 1,
        sigma_ratio: float = 1.0,
        extrapolate: bool = False,
        beside_model: Beside = "auto",
    ) -> io.NodeOutput:
        settings = settings_under(
            strength, start_percent, end_percent, uncond_strength, weights, schedule, preset, own_preset
        )
        return io.NodeOutput(
            union_layer_of(
                control_net,
                [hint for hint in hints.values() if hint is not None],
                settings.strength,
                settings.start_percent,
                settings.end_percent,
                settings.uncond_strength,
                settings.weights,
                None,
                settings.schedule,
                mask,
                node="Union Control Layer",
                enabled=enabled,
                invert_mask=invert_mask,
                feather_mask=feather_mask,
                sizing=sizing,
                fill=fill,
                batch=batch,
                reuse=Reuse(every, sigma_ratio, extrapolate),
                beside=beside_model,
            )
        )


NODES: list[type[io.ComfyNode]] = [ControlComposerUnionHint, ControlComposerUnionLayer]
