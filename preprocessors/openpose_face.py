"""The points of faces by OpenPose's face network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .networks.network import Network
from .openpose_crops import Box, box_in, parts_in, some_at_once
from .sizing import Size

SIDE = 384
"""Pixels of a face that the network sees."""
POINTS = 70
"""The network's last map is that of the ground."""
PEAK = 0.05
NOSE = 0
FROM_NOSE = ((14, 3.0), (15, 3.0), (16, 1.5), (17, 1.5))
"""Eyes and ears, and how many times as far from the nose as they are the face may reach."""


def face_box(body: np.ndarray, frame: int, size: Size) -> Box | None:
    """The square around the nose that eyes and ears ask for."""
    nose = body[NOSE]
    seen = [(body[point], factor) for point, factor in FROM_NOSE if body[point, 2]]
    if not nose[2] or not seen:
        return None
    half = max(factor * float(np.abs(point[:2] - nose[:2]).max()) for point, factor in seen)
    return box_in(size, frame, float(nose[0]) - half, float(nose[1]) - half, 2 * half, beyond=half)


def faces_in(picture_bchw: Tensor, boxes: Sequence[Box], network: Network, pixels: int) -> list[np.ndarray | None]:
    """The points of the face in each box: (70, 3) float32 x, y, score in the picture, or None where nothing is seen.

    (B, 3, H, W) float32 RGB, 0..1; `pixels`: how many the network may see at once.
    """
    if not boxes:
        return []
    parts = parts_in(picture_bchw, boxes)
    maps = torch.cat([network(some)[0][:, :POINTS].float() for some in some_at_once(parts, SIDE, pixels)])
    best = []
    for one, box in zip(maps, boxes, strict=True):
        large = interpolate(one[None], (box.height, box.width), mode="bilinear", align_corners=True)
        best.append(large[0].flatten(1).max(dim=1))
    scores, places = (torch.stack(parts).cpu().numpy() for parts in zip(*best, strict=True))
    return [face_of(*found) for found in zip(scores, places, boxes, strict=True)]


def face_of(scores: np.ndarray, places: np.ndarray, box: Box) -> np.ndarray | None:
    y, x = np.divmod(places, box.width)
    face = np.stack([box.x + x, box.y + y, scores], 1).astype(np.float32)
    face[scores <= PEAK] = 0
    return face if face[:, 2].any() else None
