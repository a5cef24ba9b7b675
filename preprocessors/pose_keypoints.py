"""POSE_KEYPOINT, the list that pose nodes pass on, to and from poses.

One dictionary for each frame, as OpenPose writes its JSON: canvas_width, canvas_height and people, each with flat lists x, y, score of the body, the
hands and the face. Three habits are read: pixels (DWPose of comfyui_controlnet_aux, SDPose of the host), fractions of the canvas (OpenPose of
comfyui_controlnet_aux), and OpenPose's own files, which name no canvas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from .errors import PreprocessorError
from .pose import BODY, FACE_POINTS, HAND_POINTS, Person, Pose
from .sizing import Size

BODY_25 = (*range(8), *range(9, 19))
"""Of OpenPose's body of 25 points, which has the middle of the hips as the ninth and the feet at its end, the 18."""
LARGEST_FRACTION = 2.0
"""No coordinate beyond it: fractions. People who stand partly outside of the canvas go beyond 1, and none is two pixels large."""
FARTHEST = 1e6
"""Pixels. What is farther away is no point of a picture, and OpenCV cannot draw to it."""
LARGEST_SIDE = 16384
"""Of a canvas, as in the host."""
UNSIZED_MULTIPLE = 64
NOT_FOUND = -1.0
"""Pixels. Both OpenPose (hands and face) and SDPose write it, with any score, for points that they did not find."""


class Part(NamedTuple):
    field: str
    key: str
    points: tuple[int, ...]
    """How many it may have."""
    written: int
    """How many it is written with."""


PARTS = (
    Part("body", "pose_keypoints_2d", (len(BODY), 25), len(BODY)),
    Part("left_hand", "hand_left_keypoints_2d", (HAND_POINTS,), HAND_POINTS),
    Part("right_hand", "hand_right_keypoints_2d", (HAND_POINTS,), HAND_POINTS),
    Part("face", "face_keypoints_2d", FACE_POINTS, max(FACE_POINTS)),
)


class Frame(NamedTuple):
    where: str
    size: Size | None
    people: list[dict[str, np.ndarray]]
    """Of each person the parts that are there, in the units of the list."""


def as_poses(keypoints: Any, unsized: Size | None = None) -> tuple[Pose, ...]:
    """The pose of each frame.

    `unsized` is the canvas of frames that name none; without it they take the canvas of the first frame that does, or one that holds their points.
    Raises PreprocessorError for anything but human poses in one of the three habits.
    """
    frames = [keypoints] if isinstance(keypoints, Mapping) else keypoints
    if not isinstance(frames, Sequence) or isinstance(frames, str) or not frames:
        raise PreprocessorError(
            f"pose: found {_described(frames)}, but a list with a pose for each frame was expected; connect a POSE_KEYPOINT output."
        )
    parsed = [_frame(frame, f"frame {number}") for number, frame in enumerate(frames)]
    known = unsized or next((frame.size for frame in parsed if frame.size is not None), None)
    return tuple(_pose(frame, known) for frame in parsed)


def _frame(frame: Any, where: str) -> Frame:
    if not isinstance(frame, Mapping):
        raise PreprocessorError(
            f"pose, {where}: found {_described(frame)}, but a dictionary with 'people' was expected; connect a POSE_KEYPOINT output."
        )
    if frame.get("animals") or frame.get("version") == "ap10k":
        raise PreprocessorError(
            f"pose, {where}: found the 17 points of animals (AP-10K), but people were expected; "
            "use the picture that the animal pose node makes as the hint."
        )
    if "people" not in frame:
        raise PreprocessorError(
            f"pose, {where}: found no 'people', but a list of them, which may be empty, was expected; connect a POSE_KEYPOINT output."
        )
    people = frame["people"]
    if people is not None and (not isinstance(people, Sequence) or isinstance(people, str)):
        raise PreprocessorError(
            f"pose, {where}: found {_described(people)} as 'people', but a list was expected; connect a POSE_KEYPOINT output."
        )
    found = [
        _parts(person, f"{where}, person {number}")
        for number, person in enumerate(people or ())
        # Nodes that pick people out of a list leave such holes.
        if person is not None
    ]
    return Frame(where, _canvas(frame, where), found)


def _canvas(frame: Mapping[str, Any], where: str) -> Size | None:
    sides: tuple[Any, Any] = frame.get("canvas_height"), frame.get("canvas_width")
    if not any(sides):
        return None
    if not all(_is_number(side) and 1 <= side <= LARGEST_SIDE and side == int(side) for side in sides):
        raise PreprocessorError(
            f"pose, {where}: found a canvas of width {sides[1]!r} and height {sides[0]!r}, but whole numbers of pixels up to "
            f"{LARGEST_SIDE} were expected; correct them in the node or file that the pose comes from."
        )
    return Size(int(sides[0]), int(sides[1]))


def _parts(person: Any, where: str) -> dict[str, np.ndarray]:
    if not isinstance(person, Mapping):
        raise PreprocessorError(
            f"pose, {where}: found {_described(person)}, but a dictionary with '{PARTS[0].key}' was expected; connect a POSE_KEYPOINT output."
        )
    parts = {part.field: _points(person.get(part.key), part, where) for part in PARTS}
    return {field: points for field, points in parts.items() if points is not None}


def _points(values: Any, part: Part, where: str) -> np.ndarray | None:
    """(points, 3) float64, or None where nothing of the part was seen."""
    if values is None or (hasattr(values, "__len__") and len(values) == 0):
        return None
    counts = " or ".join(str(count) for count in part.points)
    expected = f"the {counts} points of a {part.field.replace('_', ' ')} as numbers x, y, score were expected"
    if not isinstance(values, Sequence | np.ndarray) or not all(_is_number(value) for value in values):
        raise PreprocessorError(
            f"pose, {where}: found {_described(values)} as '{part.key}', but {expected}; look for the node or file that wrote it."
        )
    if len(values) % 3 or len(values) // 3 not in part.points:
        raise PreprocessorError(
            f"pose, {where}: found {len(values)} numbers in '{part.key}', but {expected}; "
            "take the pose from a node that writes points as OpenPose does."
        )
    try:
        points = np.array(values, dtype=np.float64).reshape(-1, 3)
    except OverflowError:  # Whole numbers of hundreds of digits.
        points = np.full((len(values) // 3, 3), np.inf)
    if not np.isfinite(points).all():
        raise PreprocessorError(
            f"pose, {where}: found a number that is NaN or infinite in '{part.key}', but {expected}; look for the node or file that wrote it."
        )
    if part.field == "body" and len(points) == 25:
        points = points[list(BODY_25)]
    points[points[:, 2] <= 0] = 0
    return points if points.any() else None


def _pose(frame: Frame, known: Size | None) -> Pose:
    parts = [points for person in frame.people for points in person.values()]
    seen = np.concatenate([np.zeros((0, 3)), *(points[points[:, 2] > 0] for points in parts)])[:, :2]
    farthest = float(np.abs(seen).max(initial=0.0))
    size = frame.size or known
    in_fractions = seen.size > 0 and farthest <= LARGEST_FRACTION and (size is None or max(size) > LARGEST_FRACTION)
    if size is None:
        if in_fractions:
            raise PreprocessorError(
                f"pose, {frame.where}: found points in fractions of a canvas of unknown size, but canvas_width and canvas_height were expected "
                "beside them; set width and height of the node, or write them into the file."
            )
        size = _holding(seen)
    if farthest > FARTHEST:
        raise PreprocessorError(
            f"pose, {frame.where}: found a point {farthest:.4g} pixels away, but points within {FARTHEST:.0f} pixels were expected; "
            "look for the node or file that wrote it."
        )
    scale = np.array([size.width, size.height, 1.0] if in_fractions else [1.0, 1.0, 1.0])
    people = (
        {field: found for field, points in person.items() if (found := _found(points * scale)) is not None}
        for person in frame.people
    )
    nobody = np.zeros((len(BODY), 3), dtype=np.float32)
    return Pose(size.height, size.width, tuple(Person(**{"body": nobody, **person}) for person in people))


def _found(points: np.ndarray) -> np.ndarray | None:
    """In pixels, without what was marked as not found."""
    # A thousandth of a pixel is what a fraction loses in single precision.
    missing = (np.abs(points[:, :2] - NOT_FOUND) < 1e-3).any(axis=1)
    points[missing] = 0
    return points.astype(np.float32) if points.any() else None


def _holding(seen: np.ndarray) -> Size:
    """A canvas with room for the points."""
    right, lower = (int(side) for side in np.clip(seen, 0, LARGEST_SIDE - 1).max(axis=0, initial=0))
    multiple = UNSIZED_MULTIPLE
    return Size((lower // multiple + 1) * multiple, (right // multiple + 1) * multiple)


def as_keypoints(poses: Sequence[Pose], whole_scores: bool = False) -> list[dict[str, Any]]:
    """POSE_KEYPOINT in pixels, with the scores as they are or, where `whole_scores`, 1 for every point seen.

    Parts that were not seen are written as zeros, which all readers take for that: the host's want lists of the full length, others only skip `None`.
    """
    return [
        {
            "people": [
                {part.key: _flat(getattr(person, part.field), part.written, whole_scores) for part in PARTS}
                for person in pose.people
            ],
            "canvas_height": pose.height,
            "canvas_width": pose.width,
        }
        for pose in poses
    ]


def _flat(points: np.ndarray | None, count: int, whole_scores: bool) -> list[float]:
    rows = np.zeros((count, 3))
    if points is not None:
        rows[: len(points)] = np.where(points[:, 2:] > 0, points, 0)
    if whole_scores:
        rows[:, 2] = rows[:, 2] > 0
    flat: list[float] = rows.reshape(-1).tolist()
    return flat


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _described(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"a list of {len(value)}" + (f" ({type(value[0]).__name__} first)" if value else "")
    return f"a value of type {type(value).__name__}"
