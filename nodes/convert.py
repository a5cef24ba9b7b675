"""Menu section "convert": what the host's own networks find, as hints that ControlNets know."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor
from torch.nn.functional import interpolate

from ..preprocessors import PreprocessorError
from ..preprocessors.colour_masks import colour_masks, painted
from ..preprocessors.face_mesh import SMALLEST, face_mesh
from ..preprocessors.geometry_depth import GRADINGS, INVERSE, geometry_depth
from ..preprocessors.normal_convention import BAE, CONVENTIONS, OPENGL, normal_convention
from ..preprocessors.sizing import Size

CATEGORY = "Control Composer/convert"
SKY = 0.3
"""From this probability on it is sky, as the host's own Render Depth Anything 3 has it."""


def hint_output(what: str) -> io.Image.Output:
    return io.Image.Output("hint", display_name="hint", tooltip=f"The hint: {what}.")


def as_the_host_keeps_it(hint_bhwc: Tensor) -> io.NodeOutput:
    management = comfy.model_management
    return io.NodeOutput(hint_bhwc.to(management.intermediate_device(), management.intermediate_dtype()))


def in_data(data: Any, what: str, *names: str, node: str) -> list[Any]:
    """These parts of what a node of the host gives. Raises PreprocessorError."""
    missing = [name for name in names if not isinstance(data, dict) or name not in data]
    if missing:
        found = ", ".join(sorted(data)) if isinstance(data, dict) else type(data).__name__
        raise PreprocessorError(
            f'{what}: found {found or "nothing"}, but a dictionary with {missing[0]} was expected; connect the output of the node "{node}".'
        )
    return [data[name] for name in names]


def seed_input() -> io.Int.Input:
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=2**53 - 1,
        control_after_generate=io.ControlAfterGenerate.fixed,
        tooltip="Chooses the colours; each thing keeps its own from frame to frame.",
    )


class ControlComposerGeometryDepth(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerGeometryDepth",
            display_name="Depth Hint of Geometry (Control Composer)",
            category=CATEGORY,
            description="The depth that Depth Anything 3 or MoGe measured, graded as the depth ControlNets were trained on: near is white, sky is black.",
            search_aliases=["depth anything 3", "da3", "moge", "depth to controlnet", "depth map", "hint"],
            inputs=[
                io.MultiType.Input(
                    "geometry",
                    [io.Custom("DA3_GEOMETRY"), io.Custom("MOGE_GEOMETRY")],
                    tooltip="Of Run Depth Anything 3 or Run MoGe Inference.",
                ),
                io.Combo.Input(
                    "grading",
                    options=list(GRADINGS),
                    default=INVERSE,
                    tooltip="1 / distance, as MiDaS and Depth Anything 2 have it, gives near things most of the range; evenly is as Zoe has it.",
                ),
            ],
            outputs=[hint_output("depth, near is white, sky and what was not measured is black")],
        )

    @classmethod
    def execute(cls, geometry: Any, grading: str = INVERSE) -> io.NodeOutput:
        (depth,) = in_data(geometry, "geometry", "depth", node="Run Depth Anything 3")
        seen = geometry.get("mask")
        if "sky" in geometry:
            seen = geometry["sky"] < SKY
        return as_the_host_keeps_it(geometry_depth(depth, None if seen is None else seen.bool(), grading))


class ControlComposerNormalConvention(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        meanings = "; ".join(f"{name}: {meaning}" for name, meaning in CONVENTIONS.items())
        return io.Schema(
            node_id="ControlComposerNormalConvention",
            display_name="Normal Map Convention (Control Composer)",
            category=CATEGORY,
            description="The same surface directions in the colours that another program or ControlNet expects.",
            search_aliases=["normal map", "flip green", "moge normal", "opengl directx", "normalbae", "hint"],
            inputs=[
                io.Image.Input(
                    "image", tooltip="The normal map: of Render MoGe Geometry, a rendering, or a preprocessor."
                ),
                io.Combo.Input(
                    "source", options=list(CONVENTIONS), default=OPENGL, tooltip=f"What it is in. {meanings}."
                ),
                io.Combo.Input(
                    "target",
                    options=list(CONVENTIONS),
                    default=BAE,
                    tooltip="What it is to be in: NormalBAE for the normal ControlNets of today, MiDaS for ControlNet 1.0's.",
                ),
            ],
            outputs=[hint_output("the normal map in the other colours")],
        )

    @classmethod
    def execute(cls, image: Tensor, source: str = OPENGL, target: str = BAE) -> io.NodeOutput:
        return as_the_host_keeps_it(normal_convention(image, source, target))


class ControlComposerColourMasks(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerColourMasks",
            display_name="Colour Masks (Control Composer)",
            category=CATEGORY,
            description="The masks of all things of one picture as one picture: each in a colour of its own, the smaller on the larger.",
            search_aliases=["SAMPreprocessor", "sam3", "segment anything", "masks to image", "segmentation", "hint"],
            inputs=[
                io.Mask.Input(
                    "masks", tooltip="One mask for each thing of one picture: of SAM3 Detect with individual_masks."
                ),
                seed_input(),
            ],
            outputs=[hint_output("areas in colours of their own on black")],
        )

    @classmethod
    def execute(cls, masks: Tensor, seed: int = 0) -> io.NodeOutput:
        return as_the_host_keeps_it(colour_masks(masks, seed))


class ControlComposerColourTracks(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerColourTracks",
            display_name="Colour Tracked Things (Control Composer)",
            category=CATEGORY,
            description="The things that SAM3 follows through a video, each in one colour in all frames.",
            search_aliases=["sam3", "video segmentation", "track to image", "segment anything", "hint"],
            inputs=[
                io.Custom("SAM3_TRACK_DATA").Input("track_data", tooltip="Of Run SAM3 Video Track."),
                seed_input(),
            ],
            outputs=[hint_output("for each frame the things in their colours on black, the first found on top")],
        )

    @classmethod
    def execute(cls, track_data: Any, seed: int = 0) -> io.NodeOutput:
        from comfy.ldm.sam3.tracker import unpack_masks  # here, because importing the pack must stay fast

        packed, size = in_data(track_data, "track_data", "packed_masks", "orig_size", node="Run SAM3 Video Track")
        frames = track_data["n_frames"] if packed is None else packed.shape[0]
        hints = torch.zeros((frames, *size, 3))
        progress = comfy.utils.ProgressBar(frames)
        for hint, masks in zip(hints, () if packed is None else packed, strict=packed is not None):
            comfy.model_management.throw_exception_if_processing_interrupted()
            sized = interpolate(unpack_masks(masks).float()[None], size=tuple(size), mode="bilinear")[0] >= 0.5
            hint.copy_(painted(sized, range(sized.shape[0] - 1, -1, -1), seed))
            progress.update(1)
        return as_the_host_keeps_it(hints)


class ControlComposerDrawFaces(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerDrawFaces",
            display_name="Draw Faces (Control Composer)",
            category=CATEGORY,
            description="Faces as lines in the colours of laion-face: for the face ControlNets that were trained with MediaPipe.",
            search_aliases=["MediaPipe-FaceMeshPreprocessor", "mediapipe face", "face mesh", "laion face", "hint"],
            inputs=[
                io.Custom("FACE_LANDMARKS").Input("face_landmarks", tooltip="Of Detect Face Landmarks (MediaPipe)."),
                io.Int.Input(
                    "smallest",
                    default=SMALLEST,
                    min=0,
                    max=4096,
                    tooltip="Pixels of a face's smaller side under which it is left out, as in the ControlNets' training.",
                ),
            ],
            outputs=[hint_output("faces as coloured lines on black")],
        )

    @classmethod
    def execute(cls, face_landmarks: Any, smallest: int = SMALLEST) -> io.NodeOutput:
        frames, size, parts = in_data(
            face_landmarks,
            "face_landmarks",
            "frames",
            "image_size",
            "connection_sets",
            node="Detect Face Landmarks (MediaPipe)",
        )
        progress = comfy.utils.ProgressBar(len(frames))
        hints = torch.zeros((len(frames), *size, 3))
        for hint, faces in zip(hints, frames, strict=True):
            comfy.model_management.throw_exception_if_processing_interrupted()
            hint.copy_(face_mesh([face["landmarks_xy"] for face in faces], parts, Size(*size), smallest))
            progress.update(1)
        return as_the_host_keeps_it(hints)


NODES: list[type[io.ComfyNode]] = [
    ControlComposerGeometryDepth,
    ControlComposerNormalConvention,
    ControlComposerColourMasks,
    ControlComposerColourTracks,
    ControlComposerDrawFaces,
]
