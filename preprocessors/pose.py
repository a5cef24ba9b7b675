"""The people of a picture as points, in the order of OpenPose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BODY = (
    "nose",
    "neck",
    "right shoulder",
    "right elbow",
    "right wrist",
    "left shoulder",
    "left elbow",
    "left wrist",
    "right hip",
    "right knee",
    "right ankle",
    "left hip",
    "left knee",
    "left ankle",
    "right eye",
    "left eye",
    "right ear",
    "left ear",
)
"""The points of a body, right and left as the person has them."""
HAND_POINTS = 21
"""The wrist, then four of each finger from the palm outwards, thumb first."""
FACE_POINTS = (68, 70)
"""The 68 landmarks of iBUG, then the right and left pupil where there are 70."""


@dataclass(frozen=True, eq=False)
class Person:
    """Points as float32 rows of x, y in pixels of the canvas (the centre of the first one is 0, as OpenCV counts) and score; score 0: not seen."""

    body: np.ndarray
    """(18, 3)"""
    left_hand: np.ndarray | None = None
    """(21, 3)"""
    right_hand: np.ndarray | None = None
    """(21, 3)"""
    face: np.ndarray | None = None
    """(68, 3) or (70, 3)"""


@dataclass(frozen=True, eq=False)
class Pose:
    """All people of one picture."""

    height: int
    width: int
    people: tuple[Person, ...] = ()
