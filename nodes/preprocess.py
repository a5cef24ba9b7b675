"""Menu section "preprocess": picture -> hint. The preprocessors themselves are plain functions in preprocessors/."""

from __future__ import annotations

from functools import partial
from typing import Any

import comfy.model_management
import comfy.utils
from comfy_api.latest import io
from torch import Tensor

from ..preprocessors import PREPROCESSORS, Parameter, Preprocessor
from ..preprocessors.batches import in_chunks

# Small enough that progress moves and an interruption is heard, large enough that nothing is lost to the loop.
FRAMES_PER_CHUNK = 8


def parameter_input(parameter: Parameter) -> io.Int.Input | io.Float.Input | io.Combo.Input:
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


def preprocessor_schema(preprocessor: Preprocessor) -> io.Schema:
    return io.Schema(
        node_id=f"ControlComposer{preprocessor.id}",
        display_name=f"{preprocessor.name} (Control Composer)",
        category="Control Composer/preprocess",
        description=preprocessor.description,
        search_aliases=[*preprocessor.aliases, "preprocessor", "hint", "controlnet"],
        inputs=[
            io.Image.Input("image", tooltip="The picture, or the frames, to make hints of."),
            *(parameter_input(parameter) for parameter in preprocessor.parameters),
            io.Int.Input(
                "resolution",
                default=0,
                min=0,
                max=16384,
                step=8,
                tooltip="Pixels of the shorter side of the hint; the picture is resized before it is looked at. "
                "0 keeps the picture's own size.",
            ),
        ],
        outputs=[io.Image.Output("hint", display_name="hint", tooltip=f"The hint: {preprocessor.output}.")],
    )


def preprocess(preprocessor: Preprocessor, image_bhwc: Tensor, resolution: int, **parameters: Any) -> Tensor:
    """The hint of a batch, with the host's progress bar, interruption and choice of where pictures live."""
    progress = comfy.utils.ProgressBar(image_bhwc.shape[0])

    def before_chunk(done: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        progress.update_absolute(done)

    hint = in_chunks(
        partial(preprocessor, resolution=resolution, **parameters), image_bhwc, FRAMES_PER_CHUNK, before_chunk
    )
    return hint.to(comfy.model_management.intermediate_device(), comfy.model_management.intermediate_dtype())


def preprocessor_node(preprocessor: Preprocessor) -> type[io.ComfyNode]:
    """The node of one preprocessor; its inputs are those of the function."""

    class Node(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            return preprocessor_schema(preprocessor)

        @classmethod
        def execute(cls, image: Tensor, resolution: int = 0, **parameters: Any) -> io.NodeOutput:
            return io.NodeOutput(preprocess(preprocessor, image, resolution, **parameters))

    Node.__name__ = Node.__qualname__ = f"ControlComposer{preprocessor.id}"
    return Node


NODES: list[type[io.ComfyNode]] = [preprocessor_node(preprocessor) for preprocessor in PREPROCESSORS]
