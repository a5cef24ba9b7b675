"""Menu section "apply": a control and its hint onto the conditionings."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..control import apply_control
from ..residuals.weights import BlockWeights
from .weight import Weights


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
            ],
            inputs=[
                io.Conditioning.Input("positive", tooltip="What the picture should show."),
                io.Conditioning.Input("negative", tooltip="What it should not show."),
                io.ControlNet.Input(
                    "control_net", tooltip="From Load ControlNet, ours or the stock one, of any family."
                ),
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
                Weights.Input(
                    "weights", optional=True, tooltip="One factor per block of the UNet, from a weights node."
                ),
                io.Vae.Input(
                    "vae", optional=True, tooltip="Only for controls that read latents, such as those of SD3 and Flux."
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    "positive", display_name="positive", tooltip="The positive conditioning with the control."
                ),
                io.Conditioning.Output(
                    "negative", display_name="negative", tooltip="The negative conditioning with the control."
                ),
            ],
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
    ) -> io.NodeOutput:
        return io.NodeOutput(
            *apply_control(
                positive,
                negative,
                control_net,
                image,
                strength,
                start_percent,
                end_percent,
                uncond_strength,
                weights,
                vae,
            )
        )


NODES: list[type[io.ComfyNode]] = [ControlComposerApply]
