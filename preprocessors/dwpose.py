"""Poses of people with hands and faces, by DWPose."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .networks.network import Network
from .people_boxes import SIDE, people_boxes
from .pixels import check_picture
from .pose import Pose
from .pose_drawing import THICK_STICKS, all_drawn
from .pose_editing import on_canvas
from .preprocessor import Parameter, Preprocessor
from .sizing import Size, size_at
from .whole_body import whole_bodies


def dwpose(
    image_bhwc: Tensor,
    *,
    networks: Mapping[str, Network],
    body: bool = True,
    hands: bool = True,
    face: bool = True,
    thick_sticks: bool = False,
    find_people: bool = True,
    or_whole_picture: bool = True,
    resolution: int = 0,
) -> tuple[Tensor, list[Pose]]:
    """(B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1 on the image's device, the shorter side at `resolution` (0: its own), and the poses.

    The networks see the pictures at their own size; what they find is drawn at the size of the hint, so lines are never resized.
    """
    check_picture(image_bhwc, "image")
    pictures = image_bhwc.clamp(0, 1).float().movedim(-1, 1) * 255
    height, width = pictures.shape[2:]
    whole = pictures.new_tensor([[0, 0, width, height]])
    boxes = [people_boxes(picture, networks["YOLOX"]) if find_people else whole for picture in pictures]
    if or_whole_picture:
        boxes = [of_one if len(of_one) else whole for of_one in boxes]
    size = size_at(Size(height, width), resolution)
    poses = [
        on_canvas(Pose(height, width, people), size.height, size.width)
        for people in whole_bodies(pictures, boxes, networks["DWPose"])
    ]
    hints = all_drawn(poses, body=body, hands=hands, face=face, thick_sticks=thick_sticks)
    return hints.to(image_bhwc.device), poses


DWPOSE = Preprocessor(
    id="DWPose",
    name="DWPose",
    function=dwpose,
    parameters=(
        Parameter("body", True, "Draw bodies."),
        Parameter("hands", True, "Draw hands."),
        Parameter("face", True, "Draw faces."),
        Parameter("thick_sticks", False, THICK_STICKS),
        Parameter(
            "find_people",
            True,
            "Look for people first, then at each of them closely. Off: the picture is taken as one person, and the file that finds people is not needed.",
        ),
        Parameter(
            "or_whole_picture",
            True,
            "Where nobody is found, as happens with drawings, take the whole picture as one person. Off: such a hint is black.",
        ),
    ),
    annotators=("YOLOX", "DWPose"),
    switches={"YOLOX": "find_people"},
    data="pose",
    looks_at=lambda size, parameters: Size(SIDE, SIDE),
    output="people as coloured sticks, with hands and faces, on black",
    description="The poses of all people with hands and faces, by two networks: for the openpose and dw_openpose ControlNets.",
    aliases=(
        "DWPreprocessor",
        "dw_openpose_full",
        "dwpose estimator",
        "dw pose",
        "hand pose",
        "openpose",
        "pose keypoints",
    ),
)
