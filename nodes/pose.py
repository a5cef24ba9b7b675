"""Menu section "pose": people as points, between the nodes that find them and the hint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor

from ..preprocessors.pose import Pose
from ..preprocessors.pose_drawing import THICK_STICKS, drawn
from ..preprocessors.pose_editing import ABOUT, WHO, certain, chosen, moved, on_canvas, without
from ..preprocessors.pose_keypoints import LARGEST_SIDE, as_keypoints, as_poses
from ..preprocessors.sizing import Size

PoseKeypoint = io.Custom("POSE_KEYPOINT")
CATEGORY = "Control Composer/pose"
ALIASES = ["pose keypoints", "openpose", "dwpose", "sdpose"]
# The host's SDPose draws from 0.3, and DWPose gives nothing under it.
LEAST_SCORE = 0.3
OF_HINT = "of the hint; points move with it, sticks stay as wide as they are. 0 is that of the pose."


def pose_input() -> Any:
    return PoseKeypoint.Input(
        "pose", tooltip="The people of each frame: of DWPose, OpenPose, SDPose or other packs' pose nodes."
    )


def pose_output() -> Any:
    return PoseKeypoint.Output(
        "pose", display_name="pose", tooltip="The people of each frame, in pixels, with their scores."
    )


def hint_output() -> io.Image.Output:
    return io.Image.Output("hint", display_name="hint", tooltip="The hint: people as coloured sticks on black.")


def least_score_input() -> io.Float.Input:
    return io.Float.Input(
        "least_score",
        default=LEAST_SCORE,
        min=0.0,
        max=1.0,
        step=0.01,
        tooltip="Points that are less certain are left out. 0.3 suits DWPose and SDPose; OpenPose is sure from 0.1.",
    )


def thick_sticks_input() -> io.Boolean.Input:
    return io.Boolean.Input("thick_sticks", default=False, tooltip=THICK_STICKS)


def side_input(side: str, of_what: str) -> io.Int.Input:
    return io.Int.Input(side, default=0, min=0, max=LARGEST_SIDE, step=8, tooltip=f"The {side} {of_what}")


def hint_of(poses: Sequence[Pose], size: Size, **settings: Any) -> Tensor:
    """The poses drawn on canvases of one size, (frames, H, W, 3), with the host's progress bar and interruption."""
    progress = comfy.utils.ProgressBar(len(poses))
    hints = torch.empty(
        (len(poses), *size, 3),
        device=comfy.model_management.intermediate_device(),
        dtype=comfy.model_management.intermediate_dtype(),
    )
    for hint, pose in zip(hints, poses, strict=True):
        comfy.model_management.throw_exception_if_processing_interrupted()
        hint.copy_(drawn(on_canvas(pose, size.height, size.width), **settings))
        progress.update(1)
    return hints


def canvas_of(poses: Sequence[Pose], width: int = 0, height: int = 0) -> Size:
    """The canvas of the first frame, or the sides that are set: all hints of a batch have one size."""
    return Size(height or poses[0].height, width or poses[0].width)


class ControlComposerDrawPose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerDrawPose",
            display_name="Draw Pose (Control Composer)",
            category=CATEGORY,
            description="The hint of a pose: people as the openpose ControlNets were trained with, at any size. Frames without people are black.",
            search_aliases=[*ALIASES, "RenderPeopleKps", "render people", "render pose json", "draw keypoints"],
            inputs=[
                pose_input(),
                io.Boolean.Input("body", default=True, tooltip="Draw bodies."),
                io.Boolean.Input("hands", default=True, tooltip="Draw hands."),
                io.Boolean.Input("face", default=True, tooltip="Draw faces."),
                thick_sticks_input(),
                least_score_input(),
                side_input("width", OF_HINT),
                side_input("height", OF_HINT),
            ],
            outputs=[hint_output()],
        )

    @classmethod
    def execute(
        cls,
        pose: Any,
        body: bool = True,
        hands: bool = True,
        face: bool = True,
        thick_sticks: bool = False,
        least_score: float = LEAST_SCORE,
        width: int = 0,
        height: int = 0,
    ) -> io.NodeOutput:
        poses = as_poses(pose, Size(height, width) if height and width else None)
        hint = hint_of(
            poses,
            canvas_of(poses, width, height),
            body=body,
            hands=hands,
            face=face,
            thick_sticks=thick_sticks,
            least_score=least_score,
        )
        return io.NodeOutput(hint)


class ControlComposerEditPose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerEditPose",
            display_name="Edit Pose (Control Composer)",
            category=CATEGORY,
            description="People larger or smaller, elsewhere, without hands or faces, or without points that are uncertain.",
            search_aliases=[*ALIASES, "scale pose", "move pose", "hide hands", "pose editor"],
            inputs=[
                pose_input(),
                io.Float.Input(
                    "scale",
                    default=1.0,
                    min=0.01,
                    max=20.0,
                    step=0.01,
                    tooltip="How many times as large people become.",
                ),
                io.Combo.Input(
                    "about",
                    options=list(ABOUT),
                    default=ABOUT[0],
                    tooltip="What stays where it is when people are scaled.",
                ),
                offset_input("right", "to the right"),
                offset_input("down", "down"),
                io.Boolean.Input("body", default=True, tooltip="Keep bodies."),
                io.Boolean.Input("hands", default=True, tooltip="Keep hands."),
                io.Boolean.Input("face", default=True, tooltip="Keep faces."),
                least_score_input(),
                thick_sticks_input(),
                io.Boolean.Input(
                    "whole_scores",
                    default=False,
                    tooltip="Pass on 1 as the score of every point, for nodes that drop points of which the score is less, as comfyui_controlnet_aux "
                    "does.",
                ),
            ],
            outputs=[pose_output(), hint_output()],
        )

    @classmethod
    def execute(
        cls,
        pose: Any,
        scale: float = 1.0,
        about: str = ABOUT[0],
        right: int = 0,
        down: int = 0,
        body: bool = True,
        hands: bool = True,
        face: bool = True,
        least_score: float = LEAST_SCORE,
        thick_sticks: bool = False,
        whole_scores: bool = False,
    ) -> io.NodeOutput:
        # What is left out has no part in where the middle of a person is.
        kept = (
            without(certain(one, least_score), body=not body, hands=not hands, face=not face) for one in as_poses(pose)
        )
        poses = [moved(one, scale=scale, about=about, right=right, down=down) for one in kept]
        return io.NodeOutput(
            as_keypoints(poses, whole_scores), hint_of(poses, canvas_of(poses), thick_sticks=thick_sticks)
        )


def offset_input(name: str, direction: str) -> io.Int.Input:
    return io.Int.Input(
        name,
        default=0,
        min=-LARGEST_SIDE,
        max=LARGEST_SIDE,
        step=1,
        tooltip=f"Pixels by which people move {direction}; less than 0 for the other way.",
    )


class ControlComposerSelectPerson(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerSelectPerson",
            display_name="Select Person (Control Composer)",
            category=CATEGORY,
            description="One person of each frame, without the others. A frame without such a person is empty.",
            search_aliases=[*ALIASES, "choose person", "largest person", "single person"],
            inputs=[
                pose_input(),
                io.Combo.Input(
                    "person",
                    options=list(WHO),
                    default="largest",
                    tooltip="Who is kept: by the area that a person's points span, by their middle, or by number.",
                ),
                io.Int.Input(
                    "number",
                    default=0,
                    min=0,
                    max=999,
                    step=1,
                    tooltip="Which one with 'by number', in the order of the pose, from 0.",
                ),
                least_score_input(),
                thick_sticks_input(),
            ],
            outputs=[pose_output(), hint_output()],
        )

    @classmethod
    def execute(
        cls,
        pose: Any,
        person: str = "largest",
        number: int = 0,
        least_score: float = LEAST_SCORE,
        thick_sticks: bool = False,
    ) -> io.NodeOutput:
        poses = [chosen(certain(one, least_score), person, number) for one in as_poses(pose)]
        return io.NodeOutput(as_keypoints(poses), hint_of(poses, canvas_of(poses), thick_sticks=thick_sticks))


NODES: list[type[io.ComfyNode]] = [ControlComposerDrawPose, ControlComposerEditPose, ControlComposerSelectPerson]
