"""People for tests of poses."""

from __future__ import annotations

import numpy as np

from control_composer.preprocessors.pose import Person, Pose

STANDING = (
    (256, 80),
    (256, 140),
    (206, 142),
    (180, 210),
    (170, 280),
    (306, 140),
    (332, 208),
    (342, 284),
    (226, 290),
    (222, 390),
    (218, 480),
    (286, 292),
    (290, 388),
    (294, 484),
    (244, 68),
    (268, 70),
    (230, 76),
    (284, 74),
)
"""Places of a body on a canvas of 512 x 512, in the order of OpenPose."""


def points(places: np.ndarray, score: float = 1.0) -> np.ndarray:
    return np.concatenate([places, np.full((len(places), 1), score)], axis=1).astype(np.float32)


def hand(x: float, y: float) -> np.ndarray:
    """Five fingers, fanned out."""
    places = [(x, y)]
    for finger in range(5):
        angle = np.pi * (0.2 + 0.15 * finger)
        places += [
            (x + 9 * joint * np.cos(angle) + finger, y + 9 * joint * np.sin(angle) + joint) for joint in range(1, 5)
        ]
    return points(np.round(np.array(places)))


def face(x: float, y: float, count: int = 70) -> np.ndarray:
    angles = np.linspace(0, 6 * np.pi, count)
    radii = np.linspace(4, 22, count)
    return points(np.round(np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1)))


def standing(right: float = 0, down: float = 0, scale: float = 1.0) -> Person:
    """Somebody with everything; where nothing is scaled, in whole pixels."""

    def placed(part: np.ndarray) -> np.ndarray:
        return (part * np.array([scale, scale, 1]) + np.array([right, down, 0])).astype(np.float32)

    return Person(
        placed(points(np.array(STANDING))), placed(hand(342, 284)), placed(hand(170, 280)), placed(face(256, 74))
    )


def on(height: int, width: int, *people: Person) -> Pose:
    return Pose(height, width, people)


PARTS = ("body", "left_hand", "right_hand", "face")


def assert_same_pose(found: Pose, expected: Pose, tolerance: float = 0.0) -> None:
    assert (found.height, found.width, len(found.people)) == (expected.height, expected.width, len(expected.people))
    for one, other in zip(found.people, expected.people, strict=True):
        for part in PARTS:
            ours, theirs = getattr(one, part), getattr(other, part)
            assert (ours is None) == (theirs is None), part
            if theirs is not None:
                assert ours.dtype == np.float32
                assert ours.shape == theirs.shape
                assert np.abs(ours - theirs).max() <= tolerance, part
