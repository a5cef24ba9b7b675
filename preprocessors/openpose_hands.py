"""The points of hands by OpenPose's hand network: Simon et al., "Hand Keypoint Detection in Single Images using Multiview Bootstrapping" (CVPR 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from .networks.network import Network
from .networks.openpose import STRIDE
from .openpose_crops import Box, box_in, parts_in, some_at_once
from .resizing_matrices import resampled, resizing, smoothed
from .sizing import Size

SIDES = (184, 368, 552, 736)
"""Half to twice the 368 pixels that the network was trained with; what it finds at all of them is averaged."""
MAP = 128
"""Values of a map's side in which points are sought."""
POINTS = 21
PEAK = 0.05
SIGMA = 3.0
BEFORE_SIGMA, BEFORE_REACH = 0.8, 3
"""Of the smoothing of a part of the picture before it is resized."""
ARMS = ((5, 6, 7), (2, 3, 4))
"""Shoulder, elbow and wrist of the left and the right arm."""


def hand_box(body: np.ndarray, arm: tuple[int, int, int], frame: int, size: Size) -> Box | None:
    """Where the hand of an arm is: beyond the wrist by a third of the forearm, and one and a half times as large as that."""
    if not body[list(arm), 2].all():
        return None
    shoulder, elbow, wrist = body[list(arm), :2].astype(float)
    side = 1.5 * max(np.linalg.norm(wrist - elbow), 0.9 * np.linalg.norm(elbow - shoulder))
    x, y = wrist + 0.33 * (wrist - elbow) - side / 2
    return box_in(size, frame, x, y, side, beyond=side)


def hands_in(picture_bchw: Tensor, boxes: Sequence[Box], network: Network, pixels: int) -> list[np.ndarray | None]:
    """The points of the hand in each box: (21, 3) float32 x, y, score in the picture, or None where nothing is seen.

    (B, 3, H, W) float32 RGB, 0..1; `pixels`: how many the network may see at once.
    """
    if not boxes:
        return []
    parts = [softened(part) for part in parts_in(picture_bchw, boxes)]
    mean: Tensor | None = None
    for side in SIDES:
        large, coarse, map_size = Size(side, side), Size(side // STRIDE, side // STRIDE), Size(MAP, MAP)
        matrix = resizing(large, map_size)[0] @ resizing(coarse, large)[0]
        found = [network(some)[0][:, :POINTS] for some in some_at_once(parts, side, pixels)]
        maps = resampled(torch.cat(found), matrix, matrix) / len(SIDES)
        mean = maps if mean is None else mean + maps
    assert mean is not None  # there are sides
    smoothing = smoothed(np.eye(MAP), SIGMA)
    seen = (resampled(mean, smoothing, smoothing) > PEAK).cpu().numpy()
    return [hand_of_maps(one, where, box) for one, where, box in zip(mean.cpu().numpy(), seen, boxes, strict=True)]


def softened(part_bchw: Tensor) -> Tensor:
    """A small Gaussian, the picture mirrored beyond its borders without repeating them."""
    distances = torch.arange(-BEFORE_REACH, BEFORE_REACH + 1, device=part_bchw.device)
    kernel = torch.exp(-(distances**2) / (2 * BEFORE_SIGMA**2))
    kernel = (kernel / kernel.sum()).repeat(part_bchw.shape[1], 1, 1, 1)
    reach = (BEFORE_REACH,) * 4
    wide = pad(part_bchw, reach, mode="reflect")
    channels = part_bchw.shape[1]
    return conv2d(conv2d(wide, kernel, groups=channels), kernel.transpose(2, 3), groups=channels)


def hand_of_maps(maps: np.ndarray, seen: np.ndarray, box: Box) -> np.ndarray | None:
    """(21, 128, 128) maps, and where they are strong -> the strongest place of each map's strongest connected part, in the picture."""
    from scipy.ndimage import label, sum_labels  # here, because importing the pack must stay fast

    hand = np.zeros((POINTS, 3), np.float32)
    for point, (values, strong) in enumerate(zip(maps, seen, strict=True)):
        labels, count = label(strong, structure=np.ones((3, 3)))
        if count == 0:
            continue
        strongest = 1 + np.argmax(sum_labels(values, labels, np.arange(1, count + 1)))
        y, x = np.unravel_index(np.argmax(np.where(labels == strongest, values, 0)), values.shape)
        hand[point] = box.x + x * box.width // MAP, box.y + y * box.height // MAP, values[y, x]
    return hand if hand[:, 2].any() else None
