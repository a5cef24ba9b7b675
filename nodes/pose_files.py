"""Menu section "pose": poses as JSON files and text."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..preprocessors import PreprocessorError
from ..preprocessors.pose_keypoints import as_keypoints, as_poses
from ..preprocessors.sizing import Size
from .pose import ALIASES, CATEGORY, pose_input, pose_output, side_input

ENDING = ".json"
CANVAS = "of the canvas, where the JSON names none. With 0 it becomes one that holds the people."


def pose_of(text: str, what: str, width: int, height: int) -> list[dict[str, Any]]:
    """POSE_KEYPOINT in pixels of what a text says; the canvas, where the text names none, of this size. Raises PreprocessorError."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise PreprocessorError(
            f"{what}: found no JSON ({problem}), but the points of people as OpenPose writes them were expected; "
            "take a text that Save Pose or another pack's node has written."
        ) from None
    return as_keypoints(as_poses(found, Size(height, width) if height and width else None))


class ControlComposerSavePose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerSavePose",
            display_name="Save Pose (Control Composer)",
            category=CATEGORY,
            description="Writes the people of all frames as JSON into the output folder, numbered like pictures.",
            search_aliases=[*ALIASES, "SavePoseKpsAsJsonFile", "save pose keypoints", "pose json"],
            inputs=[
                pose_input(),
                io.String.Input(
                    "filename_prefix",
                    default="poses/pose",
                    tooltip="Folder within the output folder and beginning of the file's name; %width%, %height%, %year% and so on are filled in.",
                ),
            ],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, pose: Any, filename_prefix: str = "poses/pose") -> io.NodeOutput:
        poses = as_poses(pose)
        folder, name, number, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), poses[0].width, poses[0].height
        )
        # The host finds the next number by the underscore after it.
        file = f"{name}_{number:05}_{ENDING}"
        with (Path(folder) / file).open("x", encoding="utf-8") as target:
            json.dump(as_keypoints(poses), target)
        return io.NodeOutput(ui={"poses": [{"filename": file, "subfolder": subfolder, "type": "output"}]})


class ControlComposerLoadPose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        folder = Path(folder_paths.get_input_directory())
        files = sorted(file.name for file in folder.glob(f"*{ENDING}") if file.is_file())
        return io.Schema(
            node_id="ControlComposerLoadPose",
            display_name="Load Pose (Control Composer)",
            category=CATEGORY,
            description="The people of a JSON file in the input folder, as Save Pose, OpenPose and other packs' nodes write it.",
            search_aliases=[*ALIASES, "import pose", "pose json", "open pose file"],
            inputs=[
                io.Combo.Input("file", options=files, tooltip="A JSON file in the input folder."),
                side_input("width", CANVAS),
                side_input("height", CANVAS),
            ],
            outputs=[pose_output()],
        )

    @classmethod
    def execute(cls, file: str, width: int = 0, height: int = 0) -> io.NodeOutput:
        path = Path(folder_paths.get_annotated_filepath(file))
        return io.NodeOutput(
            pose_of(path.read_text(encoding="utf-8", errors="replace"), f"'{path.name}'", width, height)
        )

    @classmethod
    def fingerprint_inputs(cls, file: str, **_: Any) -> float:
        return os.path.getmtime(folder_paths.get_annotated_filepath(file))

    @classmethod
    def validate_inputs(cls, file: str) -> bool | str:
        if folder_paths.exists_annotated_filepath(file):
            return True
        return f"file: found no '{file}' in the input folder, but a pose as JSON was expected there; put one there or choose another."


class ControlComposerPoseFromText(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ControlComposerPoseFromText",
            display_name="Pose from Text (Control Composer)",
            category=CATEGORY,
            description="The people of a text in JSON, as pose nodes and pose editors write it.",
            search_aliases=[*ALIASES, "pose json", "paste pose", "pose editor"],
            inputs=[
                io.String.Input("text", multiline=True, tooltip="People of one frame or of several, as JSON."),
                side_input("width", CANVAS),
                side_input("height", CANVAS),
            ],
            outputs=[pose_output()],
        )

    @classmethod
    def execute(cls, text: str, width: int = 0, height: int = 0) -> io.NodeOutput:
        return io.NodeOutput(pose_of(text, "text", width, height))


NODES: list[type[io.ComfyNode]] = [ControlComposerSavePose, ControlComposerLoadPose, ControlComposerPoseFromText]
