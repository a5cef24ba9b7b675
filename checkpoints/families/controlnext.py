"""ControlNeXt: a small network that gives one map of features, and changed weights of the UNet in a second file (arXiv 2408.06070)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..base import SDXL_ADM, ConnectedBase, other_base
from ..canonical import Canonical
from ..condition import AllOf, AnyOf, Containing, NoneOf, Starting
from ..controlnext import ControlNeXtHyperparameters, controlnext_shapes, indivisible, read_controlnext
from ..encoder_shapes import MissingNameError, check_shapes, incomplete
from ..errors import IncompleteError
from ..family import Built, Family, Kind, Match
from ..heads import Heads
from ..tensors import main_dtype

SD2_TEXT = 1024
WEIGHTS_NODE = "Apply ControlNeXt Weights (Control Composer)"
LOAD_NODE = "Load ControlNet (Control Composer)"
SAME_AS_VIDEO = (
    "not told by its shapes: whether it is for SD1.5, SDXL or video (ControlNeXt-SVD-v2, which does not work here)",
)


@dataclass(frozen=True)
class ControlNeXtLoader:
    """Which of its bases a file of August 2024 was trained for is in no shape; the model decides."""

    kind: Kind = "controlnext"
    adds_to_model: bool = False

    def match(self, family: Family, file: Canonical, connected: ConnectedBase | None) -> Match:
        shapes = {name: info.shape for name, info in file.tensors.items()}
        net = read(family, file, shapes)
        check_shapes(file.path, family.noun, controlnext_shapes(net), shapes)
        bad = indivisible(net)
        if bad is not None:
            raise IncompleteError(
                file.path,
                found=f"is a {family.noun} with a width of {bad[0]}",
                expected=f"a multiple of {bad[1]} was expected there",
                remedy="use the node that its author made for it",
            )
        base = " or ".join(net.bases)
        if connected is not None:
            fitting = base_of_model(connected)
            if fitting not in net.bases or net.out_channels != width_there(net, connected):
                raise other_base(file.path, base, connected)
            base = fitting
        return Match(
            family=family,
            base=base,
            hyperparameters=net,
            heads=Heads(count=None, width=None, source="no attention"),
            names={name: info.name for name, info in file.tensors.items()},
            parameter_count=sum(info.numel for info in file.tensors.values()),
            dtype=main_dtype(file.tensors.values()),
            pooling=None,
            notes=SAME_AS_VIDEO if net.release == "August" else (),
        )

    def build(self, match: Match, tensors: Mapping[str, Tensor]) -> Built:
        # Imported here: everything before this step runs without the host.
        from ..build_controlnext import build_controlnext

        return build_controlnext(match, tensors)


def read(family: Family, file: Canonical, shapes: Mapping[str, tuple[int, ...]]) -> ControlNeXtHyperparameters:
    """Raises IncompleteError."""
    try:
        net = read_controlnext(shapes)
    except MissingNameError as error:
        raise incomplete(file.path, family.noun, [str(error)], ()) from None
    if net is None:
        blocks = len({name.split(".")[1] for name in shapes if name.startswith("down_res.")})
        raise IncompleteError(
            file.path,
            found=f"is a {family.noun} of an arrangement that was never released, with {blocks} residual blocks",
            expected="3 or, with a hint embedding, 2 were expected, and a learned scale only without one",
            remedy="use the node that its author made for it",
        )
    return net


def base_of_model(connected: ConnectedBase) -> str | None:
    """Which of the published bases a model has, by what its UNet reads; None for any other."""
    levels, pooled = len(connected.channel_mult), connected.adm_in_channels
    if levels == 3 and pooled == SDXL_ADM:
        return "SDXL"
    if levels == 4 and pooled is None and connected.context_dim != SD2_TEXT:
        return "SD1"
    return None


def width_there(net: ControlNeXtHyperparameters, connected: ConnectedBase) -> int:
    """Channels of the model's features where the map is added: behind its first level, or in the middle."""
    return connected.model_channels * (1 if net.release == "August" else connected.channel_mult[-1])


CONTROLNEXT = Family(
    name="a ControlNeXt",
    condition=AllOf("mid_convs.0.0.weight", Starting("down_res."), NoneOf(AllOf("embedding.0.weight", "scale"))),
    loader=ControlNeXtLoader(),
)

CONTROLNEXT_VIDEO = Family(
    "a ControlNeXt for Stable Video Diffusion",
    AllOf("mid_convs.0.0.weight", Starting("down_res."), "embedding.0.weight", "scale"),
    "use the nodes made for it, or choose a ControlNeXt for SD1.5 or SDXL here",
)

# A part of a UNet, in diffusers' names or in the host's; all of one is a diffusion model, which has the first convolution too.
UNET_WEIGHTS = Family(
    "a file of UNet weights for a ControlNeXt",
    AnyOf(
        AllOf(
            AnyOf(Starting("down_blocks."), Starting("mid_block."), Starting("up_blocks.")),
            NoneOf(
                "conv_in.weight", *map(Containing, ("controlnet_", "motion_modules", "temporal", "lora", "processor"))
            ),
        ),
        AllOf(
            AnyOf(Starting("input_blocks."), Starting("middle_block."), Starting("output_blocks.")),
            NoneOf("input_blocks.0.0.weight", *map(Containing, ("zero_convs", "input_hint_block", "lora", ".fuser."))),
        ),
    ),
    f"load it with the node '{WEIGHTS_NODE}', and choose the small file that it came with here",
)
