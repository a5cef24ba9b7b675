"""What can be done to poses before they are drawn. All functions return new poses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .errors import PreprocessorError
from .pose import Person, Pose

ABOUT = ("each person", "canvas")
WHO = ("everybody", "largest", "leftmost", "rightmost", "by number")


def on_canvas(pose: Pose, height: int = 0, width: int = 0) -> Pose:
    """The pose stretched to a canvas of this size; 0 keeps the side."""
    height, width = height or pose.height, width or pose.width
    if (height, width) == (pose.height, pose.width):
        return pose
    factors = np.array([width / pose.width, height / pose.height], dtype=np.float64)
    people = tuple(_moved(person, lambda places: places * factors) for person in pose.people)
    return Pose(height, width, people)


def moved(pose: Pose, *, scale: float = 1.0, about: str = "each person", right: float = 0.0, down: float = 0.0) -> Pose:
    """People `scale` times as large, about the middle of each of them or of the canvas, then moved by pixels."""
    if about not in ABOUT:
        raise PreprocessorError(
            f"about: found '{about}', but one of {', '.join(ABOUT)} was expected; choose one of them."
        )
    if not scale > 0:
        raise PreprocessorError(
            f"scale: found {scale}, but a factor over 0 was expected; 1 keeps people as large as they are."
        )

    def edited(person: Person) -> Person:
        about_x, about_y = middle(person) if about == "each person" else (pose.width / 2, pose.height / 2)
        # So ordered, a scale of 1 and no offset change no bit: places are truncated to pixels.
        offset = np.array([about_x * (1 - scale) + right, about_y * (1 - scale) + down])
        return _moved(person, lambda places: places * scale + offset)

    return replace(pose, people=tuple(edited(person) for person in pose.people))


def chosen(pose: Pose, who: str, number: int = 0) -> Pose:
    """The pose with one of its people, or with nobody where there is no such person. `number` counts as the pose lists them, from 0."""
    if who not in WHO:
        raise PreprocessorError(f"person: found '{who}', but one of {', '.join(WHO)} was expected; choose one of them.")
    if who == "everybody":
        return pose
    if who == "by number":
        return replace(pose, people=pose.people[number : number + 1])
    people = [person for person in pose.people if _places(person).size]
    if not people:
        return replace(pose, people=())
    keys: dict[str, Callable[[Person], float]] = {
        "largest": lambda person: -area(person),
        "leftmost": lambda person: middle(person)[0],
        "rightmost": lambda person: -middle(person)[0],
    }
    return replace(pose, people=(min(people, key=keys[who]),))


def without(pose: Pose, *, body: bool = False, hands: bool = False, face: bool = False) -> Pose:
    """The pose without some parts of everybody."""

    def kept(person: Person) -> Person:
        return Person(
            body=np.zeros_like(person.body) if body else person.body,
            left_hand=None if hands else person.left_hand,
            right_hand=None if hands else person.right_hand,
            face=None if face else person.face,
        )

    return replace(pose, people=tuple(kept(person) for person in pose.people))


def certain(pose: Pose, least_score: float) -> Pose:
    """The pose without points of a lower score."""

    def kept(points: np.ndarray) -> np.ndarray:
        return np.where(points[:, 2:] >= least_score, points, np.float32(0))

    return replace(pose, people=tuple(_each_part(person, kept) for person in pose.people))


def cropped(pose: Pose, top: int, left: int, height: int, width: int) -> Pose:
    """The part of the canvas from this row and column on, without the points outside of it."""
    if (top, left, height, width) == (0, 0, pose.height, pose.width):
        return pose
    offset = np.array([left, top], dtype=np.float64)

    def kept(points: np.ndarray) -> np.ndarray:
        x, y = points[:, :1], points[:, 1:2]
        # A pixel reaches half of one around its centre.
        inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
        return np.where(inside, points, np.float32(0))

    people = tuple(_each_part(_moved(person, lambda places: places - offset), kept) for person in pose.people)
    return Pose(height, width, people)


def extent(person: Person) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest x, y of what was seen of a person, float64; 0 for nothing."""
    places = _places(person).astype(np.float64)
    if not places.size:
        return np.zeros(2), np.zeros(2)
    return places.min(axis=0), places.max(axis=0)


def middle(person: Person) -> tuple[float, float]:
    low, high = extent(person)
    x, y = (low + high) / 2
    return float(x), float(y)


def area(person: Person) -> float:
    """Square pixels, of what was seen."""
    low, high = extent(person)
    return float(np.prod(high - low))


def _places(person: Person) -> np.ndarray:
    """(points, 2): x, y of all points seen."""
    parts = (person.body, person.left_hand, person.right_hand, person.face)
    return np.concatenate([part[part[:, 2] > 0, :2] for part in parts if part is not None])


def _moved(person: Person, places: Callable[[np.ndarray], np.ndarray]) -> Person:
    def kept(points: np.ndarray) -> np.ndarray:
        at = np.concatenate([places(points[:, :2]), points[:, 2:]], axis=1)
        return np.where(points[:, 2:] > 0, at, np.float32(0)).astype(np.float32)

    return _each_part(person, kept)


def _each_part(person: Person, change: Callable[[np.ndarray], np.ndarray]) -> Person:
    return Person(
        body=change(person.body),
        left_hand=None if person.left_hand is None else change(person.left_hand),
        right_hand=None if person.right_hand is None else change(person.right_hand),
        face=None if person.face is None else change(person.face),
    )
