"""Poses: how near the points of people are to those that were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..preprocessors.pose import BODY, Person, Pose
from .errors import EvaluationError

SIGMAS = {
    "nose": 0.026,
    "eye": 0.025,
    "ear": 0.035,
    "shoulder": 0.079,
    "elbow": 0.072,
    "wrist": 0.062,
    "hip": 0.107,
    "knee": 0.087,
    "ankle": 0.089,
}
"""How differently people place the points, in parts of the root of the person's area (COCO's keypoint evaluation, cocoeval.py)."""
POINTS = tuple(number for number, name in enumerate(BODY) if name != "neck")
"""COCO has no neck: OpenPose's is the middle of the shoulders, which are counted."""
SLIMMEST = 0.25
"""No box counts as narrower than this part of its longer side: people who stand upright or lie in a line have an area too."""
SMALLEST = 0.01
"""No side of a box counts as shorter than this part of the canvas' longer side: one single point has an area too."""


@dataclass(frozen=True)
class PoseScore:
    """Float32 (N), 0..1, of the similarities of people that were matched one to one so that their sum is the largest."""

    precision: Tensor
    """Their sum by the number of people found."""
    recall: Tensor
    """Their sum by the number of people wanted."""
    f1: Tensor
    """Twice their sum by the number of both; 1 where nobody is wanted and nobody found."""


def pose_score(found: Sequence[Pose], wanted: Sequence[Pose]) -> PoseScore:
    """Compares the bodies of one pose for each picture; hands and faces do not count. Canvases may differ in size.

    People without a point of COCO's are nobody. Raises EvaluationError for another number of poses.
    """
    if len(found) != len(wanted):
        raise EvaluationError(
            f"pose: found {len(found)} poses for {len(wanted)} hints, but one for each was expected; give each picture its own hint."
        )
    rows = [_scores(*pair) for pair in zip(found, wanted, strict=True)]
    precision, recall, f1 = torch.tensor(rows, dtype=torch.float32).reshape(-1, 3).unbind(dim=1)
    return PoseScore(precision=precision, recall=recall, f1=f1)


def similarity(found: Person, wanted: Person, canvas: int) -> float:
    """Object keypoint similarity, 0..1: the mean of exp(-d² / 2 s² k²) over the wanted person's points, k twice COCO's sigma.

    A point that is not found counts as 0. COCO's s² is the area of the person's mask; here, where there is none, of the box around the wanted
    points. `canvas`: its longer side in pixels. NaN where the wanted person has no point of COCO's.
    """
    seen = wanted.body[POINTS, 2] > 0
    if not seen.any():
        return float("nan")
    target, points = (person.body[POINTS, :].astype(np.float64)[seen] for person in (wanted, found))
    width, height = target[:, :2].max(axis=0) - target[:, :2].min(axis=0)
    least = max(SLIMMEST * max(width, height), SMALLEST * canvas)
    area = max(width, least) * max(height, least)
    reach = 2 * np.array([SIGMAS[BODY[number].split()[-1]] for number in POINTS])[seen]
    distance = ((points[:, :2] - target[:, :2]) ** 2).sum(axis=1)
    near = np.exp(-distance / (2 * area * reach**2))
    return float(np.where(points[:, 2] > 0, near, 0.0).mean())


def _scores(found: Pose, wanted: Pose) -> tuple[float, float, float]:
    from scipy.optimize import linear_sum_assignment  # here, because importing the pack must stay fast

    there = [_on_canvas(person, found, wanted) for person in found.people if _is_somebody(person)]
    asked = [person for person in wanted.people if _is_somebody(person)]
    if not there or not asked:
        same = float(len(there) == len(asked))
        return same, same, same
    canvas = max(wanted.height, wanted.width)
    table = np.array([[similarity(person, other, canvas) for other in asked] for person in there])
    total = float(table[linear_sum_assignment(table, maximize=True)].sum())
    return total / len(there), total / len(asked), 2 * total / (len(there) + len(asked))


def _is_somebody(person: Person) -> bool:
    return bool((person.body[POINTS, 2] > 0).any())


def _on_canvas(person: Person, own: Pose, other: Pose) -> Person:
    body = person.body.astype(np.float64)
    scale = np.array([other.width / own.width, other.height / own.height])
    body[:, :2] = (body[:, :2] + 0.5) * scale - 0.5  # 0 is the centre of the first pixel
    return Person(body=body)
