"""Poses as the pictures that the openpose ControlNets were trained with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from colorsys import hsv_to_rgb
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .pose import BODY, HAND_POINTS, Pose

LIMBS = (
    ("neck", "right shoulder"),
    ("neck", "left shoulder"),
    ("right shoulder", "right elbow"),
    ("right elbow", "right wrist"),
    ("left shoulder", "left elbow"),
    ("left elbow", "left wrist"),
    ("neck", "right hip"),
    ("right hip", "right knee"),
    ("right knee", "right ankle"),
    ("neck", "left hip"),
    ("left hip", "left knee"),
    ("left knee", "left ankle"),
    ("neck", "nose"),
    ("nose", "right eye"),
    ("right eye", "right ear"),
    ("nose", "left eye"),
    ("left eye", "left ear"),
)
"""In the order in which they are drawn, each in the colour of its place."""
COLOURS = tuple(
    tuple(int(255 * channel + 0.5) for channel in hsv_to_rgb(place / len(BODY), 1.0, 1.0)) for place in range(len(BODY))
)
"""RGB, round the hue wheel: of the points of the body, and of the limbs as long as they last."""
LIMB_SHADE = 0.6
"""Limbs are darker than the joints drawn over them."""
HALF_WIDTH = 4
"""Pixels, of a limb."""
JOINT_RADIUS = 4
BONES = tuple((0 if joint % 4 == 1 else joint - 1, joint) for joint in range(1, HAND_POINTS))
"""Of each finger: from the wrist to its root, then outwards."""
BONE_THICKNESS = 2
HAND_COLOUR = (0, 0, 255)
FACE_RADIUS = 3
FACE_COLOUR = (255, 255, 255)
THICK_STICKS = "Draw limbs wider on canvases of 500 pixels and more, as xinsir's openpose ControlNets expect them."
"""What artists are told of it."""


def drawn(
    pose: Pose,
    *,
    body: bool = True,
    hands: bool = True,
    face: bool = True,
    thick_sticks: bool = False,
    least_score: float = 0.0,
) -> Tensor:
    """(H, W, 3) float32 in 0..1 on the CPU, black where nobody is.

    Points with a score of 0 or under `least_score` are left out, with the limbs that end there. `thick_sticks` widens limbs on large canvases, as for
    xinsir's openpose ControlNets; nothing else depends on the size of the canvas.
    """
    canvas = np.zeros((pose.height, pose.width, 3), dtype=np.uint8)
    half_width = HALF_WIDTH * (stick_scale(pose.height, pose.width) if thick_sticks else 1)
    for person in pose.people:
        if body:
            _draw_body(canvas, _seen(person.body, least_score), half_width)
        if hands:
            _draw_hand(canvas, _seen(person.left_hand, least_score))
            _draw_hand(canvas, _seen(person.right_hand, least_score))
        if face:
            _draw_face(canvas, _seen(person.face, least_score))
    return torch.from_numpy(canvas).float() / 255.0


def all_drawn(poses: Sequence[Pose], **settings: Any) -> Tensor:
    """`drawn` of poses on canvases of one size, (B, H, W, 3)."""
    hints = torch.empty((len(poses), poses[0].height, poses[0].width, 3))
    for hint, pose in zip(hints, poses, strict=True):
        hint.copy_(drawn(pose, **settings))
    return hints


def stick_scale(height: int, width: int) -> int:
    """How many times wider limbs are in the pictures that xinsir's openpose ControlNets were trained with."""
    longer = max(height, width)
    return 1 if longer < 500 else min(2 + longer // 1000, 7)


def _seen(points: np.ndarray | None, least_score: float) -> list[tuple[float, float] | None]:
    """Where each point is, or None. In double precision, since places are truncated to pixels."""
    if points is None:
        return []
    return [(x, y) if score > 0 and score >= least_score else None for x, y, score in points.tolist()]


def _draw_body(canvas: np.ndarray, points: list[tuple[float, float] | None], half_width: int) -> None:
    import cv2  # here, because importing the pack must stay fast

    for limb, colour in zip(LIMBS, COLOURS, strict=False):
        start, end = (points[BODY.index(name)] for name in limb)
        if start is None or end is None:
            continue
        middle = int((start[0] + end[0]) / 2), int((start[1] + end[1]) / 2)
        length = math.sqrt((start[0] - end[0]) ** 2 + (start[1] - end[1]) ** 2)
        angle = math.degrees(math.atan2(start[1] - end[1], start[0] - end[0]))
        polygon = cv2.ellipse2Poly(middle, (int(length / 2), half_width), int(angle), 0, 360, 1)
        cv2.fillConvexPoly(canvas, polygon, [int(channel * LIMB_SHADE) for channel in colour])
    for point, colour in zip(points, COLOURS, strict=True):
        if point is not None:
            cv2.circle(canvas, (int(point[0]), int(point[1])), JOINT_RADIUS, colour, thickness=-1)


def _inside(points: list[tuple[float, float] | None]) -> list[tuple[int, int] | None]:
    """In whole pixels, without those left of or above the second row or column: hands and faces have always been drawn so."""
    whole = [None if point is None else (int(point[0]), int(point[1])) for point in points]
    return [point if point is not None and min(point) > 0 else None for point in whole]


def _draw_hand(canvas: np.ndarray, points: list[tuple[float, float] | None]) -> None:
    import cv2

    joints = _inside(points)
    if not joints:
        return
    for place, (start, end) in enumerate(BONES):
        if joints[start] is not None and joints[end] is not None:
            colour = [255 * channel for channel in hsv_to_rgb(place / len(BONES), 1.0, 1.0)]
            cv2.line(canvas, joints[start], joints[end], colour, thickness=BONE_THICKNESS)
    for joint in joints:
        if joint is not None:
            cv2.circle(canvas, joint, JOINT_RADIUS, HAND_COLOUR, thickness=-1)


def _draw_face(canvas: np.ndarray, points: list[tuple[float, float] | None]) -> None:
    import cv2

    for point in _inside(points):
        if point is not None:
            cv2.circle(canvas, point, FACE_RADIUS, FACE_COLOUR, thickness=-1)
