"""Menu section "preprocess": picture -> hint. The preprocessors themselves are plain functions in preprocessors/."""

from __future__ import annotations

import math
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor

from ..preprocessors import PREPROCESSORS, Parameter, Preprocessor
from ..preprocessors.aux_mode import as_controlnet_aux, resolution_of_networks
from ..preprocessors.batches import in_chunks
from ..preprocessors.inpaint import FILLS, inpaint
from ..preprocessors.pose_keypoints import as_keypoints
from ..preprocessors.sizing import Size, size_at
from .annotators import SHARE, networks_for

# Small enough that progress moves and an interruption is heard, large enough that nothing is lost to the loop.
FRAMES_PER_CHUNK = 8
FRAMES_ON_ACCELERATORS = 64
IMAGE_TOOLTIP = "The picture, or the frames, to make hints of."


POSE = io.Custom("POSE_KEYPOINT")
DATA_OUTPUTS: dict[str, list[Any]] = {
    "": [],
    "pose": [POSE.Output("pose", display_name="pose", tooltip="Where the joints of each person are, for pose nodes.")],
}


def parameter_input(parameter: Parameter) -> io.Boolean.Input | io.Int.Input | io.Float.Input | io.Combo.Input:
    if isinstance(parameter.default, bool):
        return io.Boolean.Input(parameter.id, default=parameter.default, tooltip=parameter.tooltip)
    if isinstance(parameter.default, str):
        return io.Combo.Input(
            parameter.id, options=list(parameter.options), default=parameter.default, tooltip=parameter.tooltip
        )
    kind = io.Int if isinstance(parameter.default, int) else io.Float
    return kind.Input(
        parameter.id,
        default=parameter.default,
        min=parameter.minimum,
        max=parameter.maximum,
        step=parameter.step,
        tooltip=parameter.tooltip,
    )


def with_fixed_seed(item: io.Input) -> io.Input:
    """The page chooses another number after each run where an input called seed says nothing of it, and the hint would never be the same."""
    if isinstance(item, io.Int.Input) and item.id == "seed":
        item.control_after_generate = io.ControlAfterGenerate.fixed
    return item


def resolution_input() -> io.Int.Input:
    return io.Int.Input(
        "resolution",
        default=0,
        min=0,
        max=16384,
        step=8,
        tooltip="Pixels of the shorter side of the hint; the picture is resized before it is looked at. 0 keeps the picture's own size.",
    )


def aux_input() -> io.Boolean.Input:
    return io.Boolean.Input(
        "as_controlnet_aux",
        default=False,
        optional=True,
        advanced=True,
        tooltip="The pixels that comfyui_controlnet_aux gives, for old workflows: in 8-bit steps, the picture padded to multiples of 64. On the CPU.",
    )


def preprocessor_schema(preprocessor: Preprocessor) -> io.Schema:
    return io.Schema(
        node_id=f"ControlComposer{preprocessor.id}",
        display_name=f"{preprocessor.name} (Control Composer)",
        category="Control Composer/preprocess",
        description=preprocessor.description,
        search_aliases=[*preprocessor.aliases, "preprocessor", "hint", "controlnet"],
        inputs=[
            io.Image.Input("image", tooltip=IMAGE_TOOLTIP),
            *(with_fixed_seed(parameter_input(parameter)) for parameter in preprocessor.parameters),
            resolution_input(),
            aux_input(),
        ],
        outputs=[
            io.Image.Output("hint", display_name="hint", tooltip=f"The hint: {preprocessor.output}."),
            *DATA_OUTPUTS[preprocessor.data],
        ],
    )


def preprocess(
    preprocessor: Preprocessor, image_bhwc: Tensor, resolution: int, as_aux: bool = False, **parameters: Any
) -> tuple[Tensor, list[Any]]:
    """The hint of a batch and its data, with the host's progress bar, interruption, device and choice of where pictures live."""
    management = comfy.model_management
    progress = comfy.utils.ProgressBar(image_bhwc.shape[0])
    device, data = management.get_torch_device(), []

    def before_chunk(done: int) -> None:
        management.throw_exception_if_processing_interrupted()
        progress.update_absolute(done)

    # What is no picture is the function's to refuse.
    is_picture = image_bhwc.ndim == 4 and 0 not in image_bhwc.shape
    size = Size(*image_bhwc.shape[1:3]) if is_picture else Size(1, 1)
    frames, networks = frames_at_once(preprocessor, size, resolution, device), None
    if needed := preprocessor.needed(parameters):
        looked_at = resolution_of_networks(preprocessor, resolution, parameters) if as_aux else resolution
        ready = networks_for(needed, preprocessor.network_size(size, looked_at, parameters))
        frames, networks = min(frames, ready.frames), ready.networks
    if preprocessor.needs_all(parameters):
        frames = max(1, image_bhwc.shape[0])

    def chunk(part_bhwc: Tensor) -> Tensor:
        if as_aux:
            hint, found = as_controlnet_aux(preprocessor, part_bhwc, resolution, networks, **parameters)
        else:
            hint, found = preprocessor.with_data(part_bhwc.to(device), resolution, networks, **parameters)
        data.extend(found)
        return hint.to(management.intermediate_device(), management.intermediate_dtype())

    return in_chunks(chunk, image_bhwc, frames, before_chunk), data


def frames_at_once(preprocessor: Preprocessor, size: Size, resolution: int, device: torch.device) -> int:
    """How many frames a preprocessor computes at once: as many as an accelerator's free memory holds, a few on the CPU."""
    if device.type == "cpu":
        return FRAMES_PER_CHUNK
    pixels = max(size.height * size.width, math.prod(size_at(size, max(resolution, 0))))
    free = comfy.model_management.get_free_memory(device)
    return max(1, min(FRAMES_ON_ACCELERATORS, int(free * SHARE / (4 * preprocessor.values_per_pixel * pixels))))


def preprocessor_node(preprocessor: Preprocessor) -> type[io.ComfyNode]:
    """The node of one preprocessor; its inputs are those of the function."""

    class Node(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            return preprocessor_schema(preprocessor)

        @classmethod
        def execute(
            cls, image: Tensor, resolution: int = 0, as_controlnet_aux: bool = False, **parameters: Any
        ) -> io.NodeOutput:
            hint, data = preprocess(preprocessor, image, resolution, as_controlnet_aux, **parameters)
            if preprocessor.data == "pose":
                return io.NodeOutput(hint, as_keypoints(data))
            return io.NodeOutput(hint)

    Node.__name__ = Node.__qualname__ = f"ControlComposer{preprocessor.id}"
    return Node


class ControlComposerPreprocess(io.ComfyNode):
    """All preprocessors behind one choice."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerPreprocess",
            display_name="Preprocess (Control Composer)",
            category="Control Composer/preprocess",
            description="Any preprocessor of this pack, with its own settings: choose one and the settings change.",
            search_aliases=["AIO_Preprocessor", "aio aux preprocessor", "preprocessor", "hint", "controlnet"],
            inputs=[
                io.Image.Input("image", tooltip=IMAGE_TOOLTIP),
                io.DynamicCombo.Input(
                    "preprocessor",
                    options=[
                        io.DynamicCombo.Option(one.id, [parameter_input(parameter) for parameter in one.parameters])
                        for one in PREPROCESSORS
                    ],
                    tooltip="What to make of the picture: take the one that the control was trained with.",
                ),
                resolution_input(),
                aux_input(),
            ],
            outputs=[io.Image.Output("hint", display_name="hint", tooltip="The hint, as the chosen node makes it.")],
        )

    @classmethod
    def execute(
        cls, image: Tensor, preprocessor: dict[str, Any], resolution: int = 0, as_controlnet_aux: bool = False
    ) -> io.NodeOutput:
        parameters = dict(preprocessor)
        chosen = parameters.pop("preprocessor")
        by_id = {one.id: one for one in PREPROCESSORS}
        hint, _ = preprocess(by_id[chosen], image, resolution, as_controlnet_aux, **parameters)
        return io.NodeOutput(hint)


class ControlComposerInpaint(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerInpaint",
            display_name="Inpaint Hint (Control Composer)",
            category="Control Composer/preprocess",
            description="The hint of the inpaint ControlNets: the picture with the masked part marked. Connect it to the control directly; nodes that "
            "resize or save pictures would lose the mark.",
            search_aliases=[
                "InpaintPreprocessor",
                "inpaint preprocessor",
                "inpaint controlnet",
                "inpaint_only",
                "inpaint_global_harmonious",
                "outpaint",
                "hint",
            ],
            inputs=[
                io.Image.Input("image", tooltip="The picture, or the frames, to be painted in."),
                io.Mask.Input(
                    "mask", tooltip="White where it is to be painted anew; one for all pictures or one for each."
                ),
                io.Combo.Input(
                    "masked",
                    options=list(FILLS),
                    default="-1",
                    optional=True,
                    tooltip="What the masked part becomes: -1 for control_v11p_sd15_inpaint and EcomXL inpaint, black for xinsir's Union (repaint) and "
                    "NoobAI inpaint.",
                ),
            ],
            outputs=[io.Image.Output("hint", display_name="hint", tooltip="The picture, the masked part marked.")],
        )

    @classmethod
    def execute(cls, image: Tensor, mask: Tensor, masked: str = "-1") -> io.NodeOutput:
        hint = inpaint(image, mask, masked=masked)
        return io.NodeOutput(
            hint.to(comfy.model_management.intermediate_device(), comfy.model_management.intermediate_dtype())
        )


NODES: list[type[io.ComfyNode]] = [
    ControlComposerPreprocess,
    *(preprocessor_node(preprocessor) for preprocessor in PREPROCESSORS),
    ControlComposerInpaint,
]
