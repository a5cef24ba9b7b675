"""In place of Advanced-ControlNet's reference control, and of what turns pictures into latents for it and for RGB SparseCtrl."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from comfy_api.latest import io
from torch import Tensor

from ..control import Control, ControlError
from ..control.keyframed import NODE, LatentHint
from ..control.reference import Mode, ReferenceNetwork
from .acn_types import number, schema

MODES: dict[str, Mode] = {
    "reference_attn": "attention",
    "reference_adain": "adain",
    "reference_attn+adain": "attention + adain",
}


@dataclass(frozen=True)
class UnboundReference:
    """A reference control that does not know its model yet, which that pack learned while sampling."""

    mode: Mode
    style_fidelity: float
    attention_weight: float
    adain_weight: float

    def bound(self, model: Any) -> Control:
        """Raises ControlError without a model."""
        if model is None:
            self.copy()
        return Control.unbound(
            ReferenceNetwork.of(
                model.model,
                self.mode,
                style_fidelity=self.style_fidelity,
                attention_weight=self.attention_weight,
                adain_weight=self.adain_weight,
            )
        )

    def copy(self) -> NoReturn:
        """The stock Apply nodes begin with it."""
        raise ControlError(
            "control_net is a Reference ControlNet that knows no model, but the model that goes to the sampler was expected; connect it to the model of the "
            f"Reference ControlNet, or to model_optional of {NODE}."
        )


def model_input() -> io.Input:
    return io.Model.Input(
        "model",
        optional=True,
        tooltip=f"The model that goes to the sampler; it may come to model_optional of {NODE} instead.",
    )


def output() -> list[io.Output]:
    return [
        io.ControlNet.Output(
            "CONTROL_NET", display_name="CONTROL_NET", tooltip="For the Apply node, with the picture and the VAE."
        )
    ]


def result(reference: UnboundReference, model: Any) -> io.NodeOutput:
    return io.NodeOutput(reference if model is None else reference.bound(model))


class ControlComposerAcnReference(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Reference",
            "Reference ControlNet",
            "Reference Control",
            [
                io.Combo.Input(
                    "reference_type",
                    options=list(MODES),
                    tooltip="What reads the reference: attention, the mean and deviation of features, or both.",
                ),
                number(
                    "style_fidelity",
                    0.5,
                    "How much the unconditional branch is spared.",
                    most=1.0,
                    step=0.01,
                    optional=False,
                ),
                number(
                    "ref_weight",
                    1.0,
                    "Which share of the places reads the reference.",
                    most=1.0,
                    step=0.01,
                    optional=False,
                ),
                model_input(),
            ],
            output(),
        )

    @classmethod
    def execute(cls, reference_type: str, style_fidelity: float, ref_weight: float, model: Any = None) -> io.NodeOutput:
        return result(UnboundReference(MODES[reference_type], style_fidelity, ref_weight, ref_weight), model)


class ControlComposerAcnReferenceFinetune(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        def inputs(part: str, words: str) -> list[io.Input]:
            return [
                number(
                    f"{part}_style_fidelity",
                    0.5,
                    f"How much {words} spares the unconditional branch.",
                    most=1.0,
                    step=0.01,
                    optional=False,
                ),
                number(
                    f"{part}_ref_weight",
                    1.0,
                    f"Which share of the places {words} acts at.",
                    most=1.0,
                    step=0.01,
                    optional=False,
                ),
                number(
                    f"{part}_strength", 1.0, "Only 1 here, or 0 to leave it out.", most=1.0, step=0.01, optional=False
                ),
            ]

        settings = [*inputs("attn", "attention"), *inputs("adain", "AdaIN"), model_input()]
        return schema("ReferenceFinetune", "Reference ControlNet (Finetune)", "Reference Control", settings, output())

    @classmethod
    def execute(
        cls,
        attn_style_fidelity: float,
        attn_ref_weight: float,
        attn_strength: float,
        adain_style_fidelity: float,
        adain_ref_weight: float,
        adain_strength: float,
        model: Any = None,
    ) -> io.NodeOutput:
        attention, adain = attn_ref_weight * attn_strength > 0, adain_ref_weight * adain_strength > 0
        if {attn_strength, adain_strength} - {0.0, 1.0} or (
            attention and adain and attn_style_fidelity != adain_style_fidelity
        ):
            raise ControlError(
                "Reference ControlNet (Finetune) (Control Composer) has strengths other than 0 and 1 or two different style fidelities, but this pack has one "
                "strength and one fidelity for both parts; set them alike, or use two Reference Controls, one for each part."
            )
        mode: Mode = "attention + adain" if attention and adain else "adain" if adain else "attention"
        fidelity = attn_style_fidelity if attention else adain_style_fidelity
        return result(
            UnboundReference(mode, fidelity, attn_ref_weight * attn_strength, adain_ref_weight * adain_strength), model
        )


def of_latent(name: str, was: str) -> type[io.ComfyNode]:
    """A picture with its VAE."""

    class Node(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            return schema(
                name,
                was,
                f"none: connect the picture and the VAE to {NODE}",
                [
                    io.Image.Input("image", tooltip="The picture."),
                    io.Vae.Input("vae", tooltip="The VAE of the model."),
                    io.Latent.Input(
                        "latent_size",
                        optional=True,
                        tooltip="Without effect here: the picture comes to the latent's size by itself.",
                    ),
                ],
                [
                    io.Image.Output(
                        "proc_IMAGE",
                        display_name="proc_IMAGE",
                        tooltip=f"For the image of {NODE} only: it is no picture that other nodes could read.",
                    )
                ],
            )

        @classmethod
        def execute(cls, image: Tensor, vae: Any, latent_size: Any = None) -> io.NodeOutput:
            return io.NodeOutput(LatentHint(image, vae))

    Node.__name__ = Node.__qualname__ = f"ControlComposerAcn{name}"
    return Node


NODES: list[type[io.ComfyNode]] = [
    ControlComposerAcnReference,
    ControlComposerAcnReferenceFinetune,
    of_latent("ReferencePreprocessor", "Reference Preproccessor"),
    of_latent("RGBSparse", "RGB SparseCtrl"),
]
