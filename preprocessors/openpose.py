"""People as points by OpenPose's networks, drawn in its colours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from .networks.network import Network
from .openpose_body import bodies, padded_size
from .openpose_crops import Box
from .openpose_face import SIDE, face_box, faces_in
from .openpose_hands import ARMS, SIDES, hand_box, hands_in
from .pixels import check_picture
from .pose import Person, Pose
from .pose_drawing import THICK_STICKS, all_drawn
from .preprocessor import Parameter, Preprocessor
from .sizing import Size, resized


def looks_at(size: Size, parameters: Mapping[str, Any]) -> Size:
    """The largest picture that a network sees; parts of pictures are given to it so many at once that they are not more than that."""
    seen = [padded_size(size)]
    if parameters["hands"]:
        seen.append(Size(max(SIDES), max(SIDES)))
    if parameters["face"]:
        seen.append(Size(SIDE, SIDE))
    return max(seen, key=lambda one: one.height * one.width)


def openpose(
    image_bhwc: Tensor,
    *,
    networks: Mapping[str, Network],
    body: bool = True,
    hands: bool = True,
    face: bool = True,
    thick_sticks: bool = False,
    resolution: int = 0,
) -> tuple[Tensor, list[Pose]]:
    """People in OpenPose's colours on black, and their points in pixels of that picture.

    (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter side at `resolution` (0: its own), and a Pose for each frame. Raises
    PreprocessorError for anything but finite RGB pictures.
    """
    check_picture(image_bhwc, "image")
    picture = resized(image_bhwc.float(), resolution).clamp(0, 1).movedim(-1, 1).contiguous()
    poses = people(picture, networks, hands, face)
    hints = all_drawn(poses, body=body, hands=hands, face=face, thick_sticks=thick_sticks)
    return hints.to(image_bhwc.device), poses


def people(picture_bchw: Tensor, networks: Mapping[str, Network], with_hands: bool, with_face: bool) -> list[Pose]:
    """The poses of pictures (B, 3, H, W) float32 RGB, 0..1."""
    size = Size(*picture_bchw.shape[2:])
    found = bodies(picture_bchw, networks["OpenPose-body"])
    everybody = [(frame, body) for frame, of_frame in enumerate(found) for body in of_frame]
    largest = looks_at(size, {"hands": with_hands, "face": with_face})
    # On the CPU many at once are no faster, and need the memory of many.
    pixels = largest.height * largest.width * (1 if picture_bchw.device.type == "cpu" else picture_bchw.shape[0])
    left: list[np.ndarray | None] = [None] * len(everybody)
    right, heads = left, left
    if with_hands:
        boxes = [hand_box(body, arm, frame, size) for arm in ARMS for frame, body in everybody]
        both = where_boxes(boxes, lambda some: hands_in(picture_bchw, some, networks["OpenPose-hand"], pixels))
        left, right = both[: len(everybody)], both[len(everybody) :]
    if with_face:
        boxes = [face_box(body, frame, size) for frame, body in everybody]
        heads = where_boxes(boxes, lambda some: faces_in(picture_bchw, some, networks["OpenPose-face"], pixels))
    persons: list[list[Person]] = [[] for _ in found]
    for (frame, body), *details in zip(everybody, left, right, heads, strict=True):
        persons[frame].append(Person(body, *details))
    return [Pose(size.height, size.width, tuple(one)) for one in persons]


def where_boxes(
    boxes: list[Box | None], find: Callable[[list[Box]], list[np.ndarray | None]]
) -> list[np.ndarray | None]:
    """What `find` finds in the boxes that there are, and None for the others."""
    found = iter(find([box for box in boxes if box is not None]))
    return [None if box is None else next(found) for box in boxes]


OPENPOSE = Preprocessor(
    id="OpenPose",
    name="OpenPose",
    function=openpose,
    parameters=(
        Parameter("body", True, "Draw bodies. They are sought in any case, because hands and faces are found by them."),
        Parameter("hands", True, "Find and draw hands."),
        Parameter("face", True, "Find and draw faces."),
        Parameter("thick_sticks", False, THICK_STICKS),
    ),
    annotators=("OpenPose-body", "OpenPose-hand", "OpenPose-face"),
    switches={"OpenPose-hand": "hands", "OpenPose-face": "face"},
    data="pose",
    looks_at=looks_at,
    values_per_pixel=100,
    output="people in OpenPose's colours on black",
    description="People as points, by OpenPose's networks: for the openpose ControlNets. The networks are not for commercial use.",
    aliases=(
        "OpenposePreprocessor",
        "openpose_full",
        "openpose pose",
        "openpose_hand",
        "openpose_face",
        "openpose_faceonly",
        "body pose",
        "skeleton",
    ),
)
