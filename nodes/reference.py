"""Menu section "load": reference control, which needs no file -> CONTROL_NET."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..control import Control
from ..control.reference import MODES, Mode, ReferenceNetwork


class ControlComposerReference(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerReference",
            display_name="Reference Control (Control Composer)",
            category="Control Composer/load",
            description="A picture as the reference for style, colours and subject, without any file: reference-only, AdaIN, or both. Connect the "
            "VAE and the picture to the node that applies it. Every step runs the model a second time, on the reference, so it takes about twice "
            "as long.",
            search_aliases=[
                "reference only",
                "reference_only",
                "reference adain",
                "style transfer",
                "reference controlnet",
                "style fidelity",
                "ACN_ReferenceControlNet",
                "reference_adain+attn",
            ],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model that goes to the sampler: Stable Diffusion 1, 2 or XL. Only the layout of its UNet is read here.",
                ),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default="attention",
                    tooltip="attention (reference_only): every self-attention also reads the reference, for subject and style. adain: features get the "
                    "reference's mean and deviation, for colours and style. Each doubles the time of a step; both together cost no more.",
                ),
                io.Float.Input(
                    "style_fidelity",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much the unconditional branch is spared. 1: it sees no reference, so CFG amplifies the reference. 0: both branches see "
                    "it, and the prompt has more say. On SDXL its cube is used, as in sd-webui-controlnet.",
                ),
                io.Float.Input(
                    "attention_weight",
                    default=1.0,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="Which share of the self-attentions reads the reference, the widest (coarsest) first; 1 is all.",
                ),
                io.Float.Input(
                    "adain_weight",
                    default=1.0,
                    min=0.01,
                    max=2.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="Which blocks AdaIN acts on, the coarsest first: 1 is about half of them, 2 all.",
                ),
                io.Int.Input(
                    "reference_seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    optional=True,
                    advanced=True,
                    tooltip="Of the noise that the reference gets at every step; the same picture again with the same number.",
                ),
            ],
            outputs=[
                io.ControlNet.Output(
                    "control_net",
                    display_name="control_net",
                    tooltip="For Apply Control or Control Layer, with the reference picture as the image and the VAE connected.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        mode: Mode,
        style_fidelity: float,
        attention_weight: float = 1.0,
        adain_weight: float = 1.0,
        reference_seed: int = 0,
    ) -> io.NodeOutput:
        network = ReferenceNetwork.of(
            model.model,
            mode,
            style_fidelity=style_fidelity,
            attention_weight=attention_weight,
            adain_weight=adain_weight,
            seed=reference_seed,
        )
        return io.NodeOutput(Control.unbound(network))


NODES: list[type[io.ComfyNode]] = [ControlComposerReference]
