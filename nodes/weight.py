"""Menu section "weight": how strongly each block of the UNet obeys."""

from __future__ import annotations

from typing import get_args

from comfy_api.latest import io

from ..residuals.block_values import parse_block_values
from ..residuals.blocks import NOMINAL_LATENT
from ..residuals.presets import PRESETS, PresetName
from ..residuals.weights import (
    SOFT_BASE,
    BlockWeights,
    Form,
    Ladder,
    LevelWeights,
    ResolutionWeights,
    Size,
    SoftWeights,
)

Weights = io.Custom("BLOCK_WEIGHTS")

LEVELS = 4
"""As many as Stable Diffusion 1 and 2 have; SDXL has three."""


def other_weights() -> io.Input:
    """The input through which weights nodes are connected in a row."""
    return Weights.Input("weights", optional=True, tooltip="Other block weights; each block gets the product of both.")


def weights_output() -> io.Output:
    return Weights.Output("weights", display_name="weights", tooltip="For the weights input of Apply Control.")


def times(weights: BlockWeights | None, own: BlockWeights) -> BlockWeights:
    return own if weights is None else weights * own


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
                other_weights(),
            ],
            outputs=[weights_output()],
        )

    @classmethod
    def execute(cls, form: Form, size: Size, reference: float, weights: BlockWeights | None = None) -> io.NodeOutput:
        return io.NodeOutput(times(weights, ResolutionWeights(form, size, reference)))


class ControlComposerSoftWeights(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerSoftWeights",
            display_name="Soft Weights",
            category="Control Composer/weight",
            description="A soft ladder: the middle block keeps its full weight, and each block before it gets a little less, the finest the least. "
            "The control gives the idea and the prompt decides the details. Fits SD1, SDXL, T2I-Adapters and any other number of blocks.",
            search_aliases=[
                "my prompt is more important",
                "guess mode",
                "scaled soft weights",
                "soft weights",
                "ScaledSoftControlNetWeights",
                "SoftControlNetWeights",
                "0.825",
                "block weights",
            ],
            inputs=[
                io.Float.Input(
                    "base",
                    default=SOFT_BASE,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="Each block has this times the weight of the next one: base^(n-i) for block i of n, 1 for the middle. "
                    "1 leaves all weights at 1; 0 leaves the middle block only. Without effect on logspace.",
                ),
                io.Combo.Input(
                    "ladder",
                    options=list(get_args(Ladder)),
                    default="power",
                    tooltip="power: base^(n-i), so 0.825 gives 0.099 to 1 on SD1 and 0.177 to 1 on SDXL. "
                    "logspace: 0.1 to 1 for any number of blocks, the ladder of diffusers' guess mode.",
                ),
                other_weights(),
            ],
            outputs=[weights_output()],
        )

    @classmethod
    def execute(cls, base: float, ladder: Ladder = "power", weights: BlockWeights | None = None) -> io.NodeOutput:
        return io.NodeOutput(times(weights, SoftWeights(base, ladder)))


class ControlComposerLevelWeights(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerLevelWeights",
            display_name="Level Weights",
            category="Control Composer/weight",
            description="One weight per resolution level and one for the middle block. Coarse levels hold composition, fine ones edges and texture.",
            search_aliases=["per-resolution", "per resolution weights", "resolution sliders", "block weights"],
            inputs=[
                *(level_input(level) for level in range(LEVELS)),
                weight_slider("middle", "The middle block, the innermost of the UNet; a T2I-Adapter for SD1 has none."),
                other_weights(),
            ],
            outputs=[weights_output()],
        )

    @classmethod
    def execute(
        cls,
        level_0: float,
        level_1: float,
        level_2: float,
        level_3: float,
        middle: float,
        weights: BlockWeights | None = None,
    ) -> io.NodeOutput:
        return io.NodeOutput(times(weights, LevelWeights((level_0, level_1, level_2, level_3), middle)))


def level_input(level: int) -> io.Input:
    cells = NOMINAL_LATENT >> level
    kind = {
        0: "the finest level",
        LEVELS - 1: "the coarsest level; SDXL has none, and the number is without effect there",
    }
    return weight_slider(
        f"level_{level}",
        f"The encoder blocks whose latent was halved {level} times: {cells}×{cells} cells for a picture of 512×512 pixels"
        f"{f', {kind[level]}' if level in kind else ''}.",
    )


def weight_slider(name: str, tooltip: str) -> io.Input:
    return io.Float.Input(
        name, default=1.0, min=0.0, max=2.0, step=0.01, display_mode=io.NumberDisplay.slider, tooltip=tooltip
    )


class ControlComposerBlockWeights(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerBlockWeights",
            display_name="Block Weights",
            category="Control Composer/weight",
            description="One weight per block: 13 numbers for SD1 and SD2, 10 for SDXL, 4 for a T2I-Adapter; the finest block first, the middle "
            "last. Another count is refused with a sentence that says how many blocks the control has.",
            search_aliases=[
                "per-block",
                "per block weights",
                "custom controlnet weights",
                "CustomControlNetWeights",
                "CustomT2IAdapterWeights",
                "t2iadapter weights",
                "advanced weighting",
            ],
            inputs=[
                io.String.Input(
                    "values",
                    default="1",
                    multiline=True,
                    tooltip="A single number for all blocks; or one per block, with commas between them; or JSON: a list, or names, "
                    'such as {"output": 0.5, "output 3": 0, "middle": 1}, where what is not named keeps 1. "output" holds the blocks of a '
                    'ControlNet, "input" those of a T2I-Adapter.',
                ),
                other_weights(),
            ],
            outputs=[weights_output()],
        )

    @classmethod
    def execute(cls, values: str, weights: BlockWeights | None = None) -> io.NodeOutput:
        return io.NodeOutput(times(weights, parse_block_values(values)))


class ControlComposerWeightPreset(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerWeightPreset",
            display_name="Weight Preset",
            category="Control Composer/weight",
            description="The control modes under their known names. Each is block weights and a balance: connect both outputs to the inputs of the "
            "same names of Apply Control.",
            search_aliases=[
                *(name.lower() for name in PRESETS),
                "control mode",
                "guess mode",
                "control weights preset",
            ],
            inputs=[
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="Balanced",
                    tooltip="Balanced: every block fully, both branches. My prompt is more important: the soft ladder of 0.825, both branches. "
                    "ControlNet is more important: every block fully, conditional branch only, so the CFG scale amplifies the control. "
                    "CFG resolution weighting: 64 / h, normalised, conditional branch only.",
                ),
                other_weights(),
            ],
            outputs=[
                weights_output(),
                io.Float.Output(
                    "uncond_strength",
                    display_name="uncond_strength",
                    tooltip="The preset's balance, for the input uncond_strength of Apply Control: 1 for both branches, 0 for the conditional one only.",
                ),
            ],
        )

    @classmethod
    def execute(cls, preset: PresetName, weights: BlockWeights | None = None) -> io.NodeOutput:
        found = PRESETS[preset]
        return io.NodeOutput(times(weights, found.weights), found.uncond_strength)


NODES: list[type[io.ComfyNode]] = [
    ControlComposerResolutionWeights,
    ControlComposerSoftWeights,
    ControlComposerLevelWeights,
    ControlComposerBlockWeights,
    ControlComposerWeightPreset,
]
