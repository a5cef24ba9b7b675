"""From the maps of OpenPose's body network to people.

Cao et al., "Realtime Multi-Person 2D Pose Estimation using Part Affinity Fields" (CVPR 2017), sections 2.2 to 2.4, with the thresholds that the
packs share: peaks of the smoothed maps are points, the field between two points says how well they join, and the best joints make people.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from .networks.network import Network
from .networks.openpose import STRIDE
from .resizing_matrices import Matrix, resampled, resizing, smoothed
from .sizing import Size

HEIGHT = 184
"""Pixels of the picture that the network sees: half of the 368 that it was trained with."""
WIDEST = 32
"""Times as wide as that: a picture of one row would fill the memory."""
PADDING = 128 / 255
SIGMA = 3.0
"""Of the smoothing before peaks are sought, in pixels."""
PEAK = 0.1
JOINED = 0.05
"""What the field along a limb has to be, in nine of the ten places asked."""
PLACES, ENOUGH_PLACES = 10, 9
LONGEST = 0.5
"""Of the picture's height: what is longer is less likely one limb."""
FEWEST_POINTS, LEAST_SCORE = 4, 0.4
POINTS = 18

LIMBS = (
    *((1, 2, 12), (1, 5, 20), (2, 3, 14), (3, 4, 16), (5, 6, 22), (6, 7, 24)),
    *((1, 8, 0), (8, 9, 2), (9, 10, 4), (1, 11, 6), (11, 12, 8), (12, 13, 10)),
    *((1, 0, 28), (0, 14, 30), (14, 16, 34), (0, 15, 32), (15, 17, 36)),
    *((2, 16, 18), (5, 17, 26)),
)
"""From which point to which, and the map of the x direction; that of y follows it."""
AT_ONCE = 1 << 26
"""Numbers in the maps of as many frames as are decoded together."""


def seen_size(size: Size) -> Size:
    """How large the network sees a picture of this size, before its padding."""
    # In this order, because rounding down shows the last bit.
    scale = min(HEIGHT / size.height, WIDEST * HEIGHT / size.width)
    return Size(max(1, int(size.height * scale)), max(1, int(size.width * scale)))


def padded_size(size: Size) -> Size:
    seen = seen_size(size)
    return Size(seen.height + -seen.height % STRIDE, seen.width + -seen.width % STRIDE)


def bodies(picture_bchw: Tensor, network: Network) -> list[list[np.ndarray]]:
    """The people of each picture: (18, 3) float32 x, y, score. (B, 3, H, W) float32 RGB, 0..1."""
    size = Size(*picture_bchw.shape[2:])
    seen, padded = seen_size(size), padded_size(size)
    shrunk = resampled(picture_bchw, *resizing(size, seen)).clamp(0, 1)
    right_and_below = (0, padded.width - seen.width, 0, padded.height - seen.height)
    fields, heat = network(pad(shrunk, right_and_below, value=PADDING))
    rows, columns = enlarging(padded, seen, size)
    frames = max(1, AT_ONCE // (100 * size.height * size.width))
    return [
        found
        for some_fields, some_heat in zip(fields.split(frames), heat.split(frames), strict=True)
        for found in people_of_maps(some_fields.float(), some_heat[:, :POINTS].float(), rows, columns)
    ]


def enlarging(padded: Size, seen: Size, size: Size) -> tuple[Matrix, Matrix]:
    """From a map to a picture: eight times as large, without the padding, to the picture's size."""
    coarse = Size(padded.height // STRIDE, padded.width // STRIDE)
    to_padded, to_size = resizing(coarse, padded), resizing(seen, size)
    return to_size[0] @ to_padded[0][: seen.height], to_size[1] @ to_padded[1][: seen.width]


def people_of_maps(fields: Tensor, heat: Tensor, rows: Matrix, columns: Matrix) -> list[list[np.ndarray]]:
    """Maps (B, 38, h, w) and (B, 18, h, w) -> the people of each picture: (18, 3) float32 x, y, score."""
    found = peaks(resampled(heat, smoothed(rows, SIGMA), smoothed(columns, SIGMA)))
    frame, point, y, x = found.T
    scores = resampled(heat, rows, columns)[frame, point, y, x].cpu().numpy()
    places = found.cpu().numpy()
    points = Points(places[:, 0], places[:, 1], places[:, 2], places[:, 3], scores)
    joints = joined(points, resampled(fields, rows, columns))
    return [assembled(points, [limb[limb["frame"] == one] for limb in joints]) for one in range(heat.shape[0])]


def peaks(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (n, 4) whole numbers: frame, channel, y, x of what is above the threshold and no neighbour exceeds."""
    found = maps > PEAK
    found[..., 1:, :] &= maps[..., 1:, :] >= maps[..., :-1, :]
    found[..., :-1, :] &= maps[..., :-1, :] >= maps[..., 1:, :]
    found[..., 1:] &= maps[..., 1:] >= maps[..., :-1]
    found[..., :-1] &= maps[..., :-1] >= maps[..., 1:]
    return found.nonzero()


@dataclass(frozen=True, eq=False)
class Points:
    """Peaks of all frames, by frame, then by point of the body."""

    frame: np.ndarray
    point: np.ndarray
    y: np.ndarray
    x: np.ndarray
    score: np.ndarray


JOINT = np.dtype([("frame", int), ("start", int), ("end", int), ("strength", float)])
"""Two points by their position in Points, and how well they join."""


def joined(points: Points, fields: Tensor) -> list[np.ndarray]:
    """The best joints of every limb, of all frames, none of which share a point. `fields`: (B, 38, H, W), as large as the picture."""
    pairs = [pairs_of(points, start, end) for start, end, _ in LIMBS]
    starts, ends = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    channels = np.repeat([limb[2] for limb in LIMBS], [len(pair[0]) for pair in pairs])
    strengths = np.split(strength(points, starts, ends, channels, fields), np.cumsum([len(pair[0]) for pair in pairs]))
    return [best(points, start, end, found) for (start, end), found in zip(pairs, strengths[: len(LIMBS)], strict=True)]


def pairs_of(points: Points, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """All positions of points of these two kinds in one frame."""
    starts, ends = np.flatnonzero(points.point == start), np.flatnonzero(points.point == end)
    one, other = np.nonzero(points.frame[starts, None] == points.frame[ends])
    return starts[one], ends[other]


def strength(points: Points, starts: np.ndarray, ends: np.ndarray, channels: np.ndarray, fields: Tensor) -> np.ndarray:
    """How well pairs of points join: the mean of the field from one to the other in that direction, less for longer than likely; 0 or less
    where they do not.
    """
    ways = np.stack([points.x[ends] - points.x[starts], points.y[ends] - points.y[starts]], 1).astype(float)
    lengths = np.maximum(np.linalg.norm(ways, axis=1), 0.001)
    along = np.linspace(0.0, 1.0, PLACES)
    x, y = (
        torch.from_numpy(np.rint(origin[starts, None] + way[:, None] * along).astype(np.int64)).to(fields.device)
        for origin, way in ((points.x, ways[:, 0]), (points.y, ways[:, 1]))
    )
    frame, channel = (torch.from_numpy(a)[:, None].to(fields.device) for a in (points.frame[starts], channels))
    directions = torch.from_numpy((ways / lengths[:, None]).astype(np.float32)).to(fields.device)[:, None]
    asked = fields[frame, channel, y, x] * directions[..., 0] + fields[frame, channel + 1, y, x] * directions[..., 1]
    means, places = asked.mean(1).cpu().numpy(), (asked > JOINED).sum(1).cpu().numpy()
    likely = means + np.minimum(LONGEST * fields.shape[2] / lengths - 1, 0)
    return np.where(places >= ENOUGH_PLACES, likely, 0.0)


def best(points: Points, starts: np.ndarray, ends: np.ndarray, strengths: np.ndarray) -> np.ndarray:
    """Of the pairs of one limb the strongest, then the strongest of those that share no point with it, and so on."""
    taken: set[int] = set()
    chosen = []
    for position in np.argsort(-strengths, kind="stable"):
        start, end = int(starts[position]), int(ends[position])
        if strengths[position] <= 0:
            break
        if start not in taken and end not in taken:
            taken |= {start, end}
            chosen.append((points.frame[start], start, end, strengths[position]))
    return np.array(chosen, JOINT)


@dataclass(eq=False)
class Someone:
    """A person as far as joined."""

    points: np.ndarray
    """(18,) positions in Points; -1: none."""
    score: float
    count: int
    """Of points added, also of those that replaced another."""


def assembled(points: Points, joints: list[np.ndarray]) -> list[np.ndarray]:
    """The people that the joints of one frame make, (18, 3) each: limb after limb, a joint goes to who has one of its points."""
    people: list[Someone] = []
    for (start, end, _), found in zip(LIMBS, joints, strict=True):
        for _, one, other, strength in found.tolist():
            gain = strength + float(points.score[other])
            # More than two have it only where crossed limbs gave one point to several people.
            owners = [someone for someone in people if someone.points[start] == one or someone.points[end] == other][:2]
            if not owners:
                people.append(Someone(np.full(POINTS, -1), gain + float(points.score[one]), 2))
                people[-1].points[[start, end]] = one, other
                continue
            first, second = owners[0], owners[-1]
            if first is not second and not np.any((first.points >= 0) & (second.points >= 0)):
                first.points = np.maximum(first.points, second.points)
                first.score += second.score + strength
                first.count += second.count
                people = [someone for someone in people if someone is not second]
            elif first is not second or first.points[end] != other:
                first.points[end] = other
                first.score += gain
                first.count += 1
    return [
        body_of(points, someone.points)
        for someone in people
        if someone.count >= FEWEST_POINTS and someone.score >= LEAST_SCORE * someone.count
    ]


def body_of(points: Points, positions: np.ndarray) -> np.ndarray:
    body = np.zeros((POINTS, 3), np.float32)
    seen = positions >= 0
    at = positions[seen]
    body[seen] = np.stack([points.x[at], points.y[at], points.score[at]], 1)
    return body
