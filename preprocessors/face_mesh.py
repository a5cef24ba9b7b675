"""Faces as lines in the colours of laion-face, which the face ControlNets of CrucibleAI were trained with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import floor

import numpy as np
import torch
from torch import Tensor

from .sizing import Size

COLOURS = {
    "face_oval": (10, 200, 10),
    "left_eye": (10, 200, 180),
    "left_eyebrow": (10, 220, 180),
    "right_eye": (180, 200, 10),
    "right_eyebrow": (180, 220, 10),
    "lips": (10, 180, 10),
}
"""By part of the face in the order in which they are drawn: red, green, blue. Left is the person's own."""
PUPILS = {468: (250, 200, 10), 473: (10, 200, 250)}
"""By point: the right and the left pupil."""
THICKNESS, HALF_PUPIL = 2, 2
SMALLEST = 64
"""Pixels of a face's smaller side under which laion-face left it out."""


def face_mesh(
    faces: Sequence[np.ndarray],
    parts: Mapping[str, Iterable[tuple[int, int]]],
    size: Size,
    smallest: int = SMALLEST,
) -> Tensor:
    """Faces of one picture, each (points, 2) x and y in pixels, and which points each part joins -> (H, W, 3) float32 in 0..1.

    Points outside of the picture are left out with their lines, and faces smaller than `smallest` pixels.
    """
    import cv2  # here, because importing the pack must stay fast

    canvas = np.zeros((*size, 3), dtype=np.uint8)
    for points in faces:
        if (np.ptp(points[:, :2], axis=0) < smallest).any():
            continue
        places = [place(point, size) for point in points]
        for part, colour in COLOURS.items():
            for start, end in parts.get(part, ()):
                ends = [places[index] if index < len(places) else None for index in (start, end)]
                if ends[0] is not None and ends[1] is not None:
                    cv2.line(canvas, ends[0], ends[1], colour, THICKNESS)
        for index, colour in PUPILS.items():
            pupil = places[index] if index < len(places) else None
            if pupil is not None:
                left, top = (max(0, value - HALF_PUPIL) for value in pupil)
                canvas[top : pupil[1] + HALF_PUPIL, left : pupil[0] + HALF_PUPIL] = colour
    return torch.from_numpy(canvas).float() / 255


def place(point: np.ndarray, size: Size) -> tuple[int, int] | None:
    """The pixel of a point, none outside of the picture."""
    x, y = float(point[0]), float(point[1])
    if not (0 <= x <= size.width and 0 <= y <= size.height):
        return None
    return min(floor(x), size.width - 1), min(floor(y), size.height - 1)
