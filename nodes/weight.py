"""Menu section "weight": how strongly each block of the UNet obeys."""

from __future__ import annotations

from typing import get_args

from comfy_api.latest import io

from ..residuals.blocks import NOMINAL_LATENT
from ..residuals.weights import BlockWeights, Form, ResolutionWeights, Size

Weights = io.Custom("BLOCK_WEIGHTS")


class ControlComposerResolutionWeights(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerResolutionWeights",
            display_name="Resolution Weights",
            category="Control Composer/weight",
            description="CFG resolution weighting of the ControlNet paper: every block's residual is multiplied by w = 64 / h, h being the "
            "block's resolution. Coarse blocks, which hold composition, keep their full weight; fine ones, which hold edges and texture, get less.",
            search_aliases=["cfg resolution weighting", "64/h", "block weights", "controlnet weights", "soft"],
            inputs=[
                io.Combo.Input(
                    "form",
                    options=list(get_args(Form)),
                    default="normalised",
                    tooltip="normalised: the largest weight is 1, so SD1 gets 0.125, 0.25, 0.5, 1 from fine to coarse. "
                    "literal: the formula as printed, 1, 2, 4, 8, which makes coarse blocks up to eight times stronger.",
                ),
                io.Combo.Input(
                    "size",
                    options=list(get_args(Size)),
                    default="nominal",
                    tooltip="nominal: h is 64, 32, 16, 8 by level, whatever the picture's size. actual: h is the block's own size, "
                    "sqrt(height × width) in latent cells, so literal weights shrink as the picture grows.",
                ),
                io.Float.Input(
                    "reference",
                    default=float(NOMINAL_LATENT),
                    min=1.0,
                    max=1024.0,
                    step=1.0,
                    advanced=True,
                    tooltip="The 64 in 64 / h, in latent cells: the size at which a literal weight is 1. Without effect on normalised weights.",
                ),
                Weights.Input(
                    "weights", optional=True, tooltip="Other block weights; each block gets the product of both."
                ),
            ],
            outputs=[
                Weights.Output("weights", display_name="weights", tooltip="For the weights input of Apply Control."),
            ],
        )

    @classmethod
    def execute(cls, form: Form, size: Size, reference: float, weights: BlockWeights | None = None) -> io.NodeOutput:
        own = ResolutionWeights(form, size, reference)
        return io.NodeOutput(own if weights is None else weights * own)


NODES: list[type[io.ComfyNode]] = [ControlComposerResolutionWeights]
