"""Menu section "apply": conditions onto the conditionings, one by one or many together."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..control import apply_control, compose_controls, layer_of
from ..control.compose import OVERLAPS, Overlap
from ..control.layer import Beside, Layer
from ..control.placing import FILLS, SIZINGS, Fill, Sizing
from ..control.reuse import Reuse
from ..control.solo import solo_numbers, soloed
from ..residuals.batches import BATCH_POLICIES, BatchPolicy
from ..residuals.layer_preset import LayerPreset
from ..residuals.schedules import Schedule
from ..residuals.weights import BlockWeights
from .beside_input import beside_input
from .layer_list import layer_list, number_of
from .preset_inputs import NONE, preset_inputs, settings_under
from .reuse_inputs import reuse_inputs
from .schedule import StrengthSchedule
from .weight import Weights

ControlLayer = io.Custom("CONTROL_LAYER")

MOST_LAYERS = 50


def conditioning_inputs() -> list[io.Input]:
    return [
        io.Conditioning.Input("positive", tooltip="What the picture should show."),
        io.Conditioning.Input("negative", tooltip="What it should not show."),
    ]


def conditioning_outputs() -> list[io.Output]:
    return [
        io.Conditioning.Output(
            "positive", display_name="positive", tooltip="The positive conditioning with the control."
        ),
        io.Conditioning.Output(
            "negative", display_name="negative", tooltip="The negative conditioning with the control."
        ),
    ]


def condition_inputs() -> list[io.Input]:
    """What one condition is and how strongly it acts."""
    return [
        io.ControlNet.Input("control_net", tooltip="From Load ControlNet, ours or the stock one, of any family."),
        io.Image.Input(
            "image",
            tooltip="The hint, of the kind that the control was trained for: edges, depth, a pose. It is cropped around the centre to "
            "the latent's aspect and resized. One picture steers all latents; of several, each steers its own, "
            "starting over when there are fewer.",
        ),
        io.Float.Input(
            "strength",
            default=1.0,
            min=0.0,
            max=10.0,
            step=0.01,
            tooltip="Multiplies what the control adds. At 0 the conditioning passes unchanged and nothing is computed.",
        ),
        io.Float.Input(
            "start_percent",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.001,
            tooltip="From where in the sampling the control acts; 0 is the beginning, all noise.",
        ),
        io.Float.Input(
            "end_percent",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.001,
            tooltip="Until where in the sampling the control acts; 1 is the end. Steps outside the range cost nothing.",
        ),
        io.Float.Input(
            "uncond_strength",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Balance: factor for the unconditional branch, the one with the negative prompt. 1 steers both branches alike. "
            '0 steers the conditional branch only, so the CFG scale amplifies the control ("ControlNet is more important"), '
            "and its network runs on half of the rows.",
        ),
        Weights.Input("weights", optional=True, tooltip="One factor per block of the UNet, from a weights node."),
        io.Vae.Input(
            "vae",
            optional=True,
            tooltip="Only for controls that read latents: Reference Control, which needs the VAE of the model, SparseCtrl RGB, CtrLoRA, and those of SD3 "
            "and Flux.",
        ),
        StrengthSchedule.Input(
            "schedule",
            optional=True,
            tooltip="How the strength changes over the sampling, or from picture to picture, from a schedule node. It multiplies the strength.",
        ),
        io.Mask.Input(
            "mask",
            optional=True,
            tooltip="Where the control acts: white fully, black not at all, grey in between. It covers the hint's picture, so it must have its "
            "aspect; each block of the UNet gets its average. One for all, or one per picture.",
        ),
    ]


def layer_inputs() -> list[io.Input]:
    """What a layer has beside its condition."""
    return [
        io.Boolean.Input(
            "enabled",
            default=True,
            optional=True,
            tooltip="Off: the layer stays in the graph, is not loaded and costs nothing.",
        ),
        io.Boolean.Input(
            "invert_mask",
            default=False,
            optional=True,
            advanced=True,
            tooltip="The control acts where the mask is black.",
        ),
        io.Float.Input(
            "feather_mask",
            default=0.0,
            min=0.0,
            max=1024.0,
            step=1.0,
            optional=True,
            advanced=True,
            tooltip="Width in pixels of the mask over which its edges become soft.",
        ),
        io.Combo.Input(
            "sizing",
            options=list(SIZINGS),
            default="crop",
            optional=True,
            tooltip="How hint and mask come to the latent's aspect. crop: cut off around the centre, as the stock nodes do. "
            "fit: the whole hint, with margins. stretch: the whole hint, out of proportion.",
        ),
        io.Combo.Input(
            "fill",
            options=list(FILLS),
            default="black",
            optional=True,
            advanced=True,
            tooltip="What the hint's margins hold under fit: black (no edges, far away), white, or its own edge drawn out. "
            "A mask is 0 there.",
        ),
        io.Combo.Input(
            "batch",
            options=list(BATCH_POLICIES),
            default="cycle",
            optional=True,
            tooltip="When there are fewer hints than latents. cycle: start over, 1 2 1 2. repeat: an equal share each, 1 1 2 2. "
            "hold last: 1 2 2 2. error: refuse. A single hint serves all. Of no effect on a SparseCtrl, whose pictures are for the frames of the "
            "node Sparse Frames.",
        ),
    ]


class ControlComposerApply(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerApply",
            display_name="Apply Control",
            category="Control Composer/apply",
            description="Lets a picture steer the result. Put several in a row to compose several controls; they are evaluated together.",
            search_aliases=[
                "apply controlnet",
                "use controlnet",
                "control net",
                "controlnet is more important",
                "guess mode",
                "ControlNetApply",
                "ControlNetApplyAdvanced",
                "apply advanced controlnet",
                "ACN_AdvancedControlNetApply",
                "control weight",
                "starting control step",
                "control mode",
            ],
            inputs=[*conditioning_inputs(), *condition_inputs(), *preset_inputs()],
            outputs=conditioning_outputs(),
        )

    @classmethod
    def execute(
        cls,
        positive: list[list[Any]],
        negative: list[list[Any]],
        control_net: Any,
        image: Tensor,
        strength: float,
        start_percent: float,
        end_percent: float,
        uncond_strength: float = 1.0,
        weights: BlockWeights | None = None,
        vae: Any = None,
        schedule: Schedule | None = None,
        mask: Tensor | None = None,
        preset: str = NONE,
        own_preset: LayerPreset | None = None,
    ) -> io.NodeOutput:
        settings = settings_under(
            strength, start_percent, end_percent, uncond_strength, weights, schedule, preset, own_preset
        )
        return io.NodeOutput(
            *apply_control(
                positive,
                negative,
                control_net,
                image,
                settings.strength,
                settings.start_percent,
                settings.end_percent,
                settings.uncond_strength,
                settings.weights,
                vae,
                settings.schedule,
                mask,
            )
        )


class ControlComposerLayer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerLayer",
            display_name="Control Layer",
            category="Control Composer/apply",
            description="One condition with all its settings, for Compose Controls: connect as many layers there as the picture needs.",
            search_aliases=[
                "controlnet stack",
                "cr multi-controlnet",
                "controlnet layer",
                "multi controlnet",
                "regional controlnet",
                "CR_Multi-ControlNet",
                "controlnet unit",
            ],
            inputs=[
                *condition_inputs(),
                *layer_inputs(),
                *preset_inputs(),
                *reuse_inputs(),
                beside_input(),
            ],
            outputs=[
                ControlLayer.Output("layer", display_name="layer", tooltip="For Compose Controls."),
            ],
        )

    @classmethod
    def execute(
        cls,
        control_net: Any,
        image: Tensor,
        strength: float,
        start_percent: float,
        end_percent: float,
        uncond_strength: float,
        weights: BlockWeights | None = None,
        vae: Any = None,
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
            layer_of(
                control_net,
                image,
                settings.strength,
                settings.start_percent,
                settings.end_percent,
                settings.uncond_strength,
                settings.weights,
                vae,
                settings.schedule,
                mask,
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


class ControlComposerCompose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerCompose",
            display_name="Compose Controls",
            category="Control Composer/apply",
            description="Any number of control layers in one node: a new input appears as soon as the last one is connected. Their effects add up; "
            "all are evaluated together, and nothing is computed twice.",
            search_aliases=[
                "controlnet stack",
                "multi controlnet",
                "apply controlnet stack",
                "combine controlnets",
                "regional control",
                "CR Apply Multi-ControlNet",
                "easy controlnetStackApply",
            ],
            inputs=[
                *conditioning_inputs(),
                io.Autogrow.Input(
                    "layers",
                    template=io.Autogrow.TemplatePrefix(
                        ControlLayer.Input("layer", tooltip="From Control Layer."),
                        prefix="layer",
                        min=1,
                        max=MOST_LAYERS,
                    ),
                    tooltip="Control Layer nodes, as many as you like.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="Multiplies the strength of all layers. A second pass, such as a hires pass, may have a Compose Controls of its own with "
                    "the same layers and another strength; hints are sized from the original pictures again.",
                ),
                io.Combo.Input(
                    "overlap",
                    options=list(OVERLAPS),
                    default="sum",
                    optional=True,
                    tooltip="Where masks of several layers overlap. sum: the layers add up. normalised: where the masks together exceed 1, each is "
                    "divided by their sum. Layers without a mask take no part.",
                ),
                io.Boolean.Input(
                    "inspect",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Notes how large residuals and features are, for Residual Heatmap. Costs a little time.",
                ),
                io.String.Input(
                    "solo",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="Numbers of the layers that act while the others keep silent, counted from 1, with commas: 1 or 1, 3. Empty: all act. A "
                    "layer that is off stays off. The S buttons of the list write it.",
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            outputs=conditioning_outputs(),
        )

    @classmethod
    def execute(
        cls,
        positive: list[list[Any]],
        negative: list[list[Any]],
        layers: dict[str, Layer | None],
        strength: float,
        overlap: Overlap = "sum",
        inspect: bool = False,
        solo: str = "",
    ) -> io.NodeOutput:
        connected = {number_of(name): layer for name, layer in layers.items() if layer is not None}
        acting = soloed(connected, solo_numbers(solo, connected) if connected else ())
        both = compose_controls(positive, negative, list(acting.values()), strength, overlap, inspect)
        return io.NodeOutput(*both, ui=layer_list(cls, acting, strength))


NODES: list[type[io.ComfyNode]] = [ControlComposerApply, ControlComposerLayer, ControlComposerCompose]
