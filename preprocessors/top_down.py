"""From boxes of people to their points, by ViTPose. Xu et al., "ViTPose: Simple Vision Transformer Baselines for Human Pose Estimation" (2022),
with the places of Huang et al., "The Devil is in the Details" (CVPR 2020), and Zhang et al., "Distribution-Aware Coordinate Representation for
Human Pose Estimation" (CVPR 2020).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from .networks.network import Network
from .resizing_matrices import resampled, smoothed
from .whole_body import BODY_WITHOUT_NECK, LEFT_SHOULDER, RIGHT_SHOULDER

HEIGHT, WIDTH = 256, 192
"""Pixels of a person that the network sees."""
MARGIN = 1.25
"""How much larger than its box that is."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, RGB in 0..1."""
COCO = 0
"""Which of the data sets that the larger networks have experts for."""
PEOPLE_AT_ONCE = 8
"""For each picture; together they are no more pixels than the detector sees of it."""
SIGMA, REACH = 0.8, 5
"""Of the smoothing of a map before its peak is refined, in its cells."""
FAINTEST, STRONGEST = 0.001, 50.0


def bodies_in_boxes(pictures_bchw: Tensor, boxes: Sequence[Tensor], network: Network) -> list[list[np.ndarray]]:
    """Pictures (B, 3, H, W) float 0..1 RGB and of each the boxes (people, 4) of left, top, right, bottom -> of each the people: (18, 3) float32 of x, y
    and score, in OpenPose's order. People of all pictures go through the network together.
    """
    frames = [frame for frame, of_frame in enumerate(boxes) for _ in range(len(of_frame))]
    people: list[list[np.ndarray]] = [[] for _ in boxes]
    if not frames:
        return people
    areas = areas_of(torch.cat([of_frame.float() for of_frame in boxes]))
    count = PEOPLE_AT_ONCE * pictures_bchw.shape[0]
    found = []
    for start in range(0, len(frames), count):
        some = areas[start : start + count]
        seen = [
            crop(pictures_bchw[frame], area) for frame, area in zip(frames[start : start + count], some, strict=True)
        ]
        found.append(points_of_maps(maps_of(torch.stack(seen), network), some))
    for frame, points in zip(frames, torch.cat(found).cpu().numpy(), strict=True):
        people[frame].append(as_body(points))
    return people


def areas_of(boxes: Tensor) -> Tensor:
    """Boxes (people, 4) of left, top, right, bottom -> what is seen of each, (people, 4) of x and y of its middle, its width and height."""
    size = boxes[:, 2:] - boxes[:, :2]
    aspect = WIDTH / HEIGHT
    width = torch.maximum(size[:, 0], size[:, 1] * aspect)
    return torch.stack([*((boxes[:, :2] + boxes[:, 2:]) / 2).T, width * MARGIN, width / aspect * MARGIN], 1)


def crop(picture_chw: Tensor, area: Tensor) -> Tensor:
    """(3, HEIGHT, WIDTH) of the picture, the middles of the outer pixels on the area's borders; black outside of the picture."""
    places, inside = [], []
    for middle, extent, count, length in zip(
        area[[1, 0]], area[[3, 2]], (HEIGHT, WIDTH), picture_chw.shape[1:], strict=True
    ):
        at = torch.arange(count, device=area.device) * (extent / (count - 1)) + (middle - extent / 2)
        inside.append((at >= 0) & (at <= length - 1))
        # In the units of grid_sample, -1 and 1 are the outer edges of the outer pixels.
        places.append((2 * at + 1) / length - 1)
    grid = torch.stack([places[1].expand(HEIGHT, WIDTH), places[0][:, None].expand(HEIGHT, WIDTH)], dim=-1)
    seen: Tensor = grid_sample(
        picture_chw[None], grid[None].to(picture_chw), padding_mode="border", align_corners=False
    )[0]
    in_picture: Tensor = inside[0][:, None] & inside[1]
    return seen * in_picture.to(seen)


def maps_of(seen_bchw: Tensor, network: Network) -> Tensor:
    """(people, 17, 64, 48) float32."""
    mean, deviation = (seen_bchw.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    settings = network.settings
    data_set = torch.full((len(seen_bchw),), COCO) if settings.backbone_config.num_experts > 1 else None
    maps: Tensor = network((seen_bchw - mean) / deviation, dataset_index=data_set).heatmaps
    return maps.float()


def points_of_maps(maps: Tensor, areas: Tensor) -> Tensor:
    """(people, points, h, w) maps -> (people, points, 3) x and y in the picture, and score, 0 for none."""
    height, width = maps.shape[2:]
    score, index = maps.flatten(2).max(dim=2)
    at = torch.stack([index % width, index // width], dim=2)
    places = at + refinement(maps, at)
    areas = areas.to(places)[:, None]
    scale = areas[..., 2:] / (places.new_tensor([width, height]) - 1)
    in_picture = places * scale + areas[..., :2] - areas[..., 2:] / 2
    seen = score[..., None].clamp(min=0)
    return torch.cat([in_picture, seen], dim=2) * (seen > 0)


def refinement(maps: Tensor, at: Tensor) -> Tensor:
    """How far from the peaks `at`, whole x and y, the tops of the distributions are: (people, points, 2), at most one cell each way.

    A Gaussian's logarithm is a parabola, whose top its derivatives in one place tell.
    """
    height, width = maps.shape[2:]
    rows, columns = (smoothed(np.eye(length), SIGMA, (REACH + 0.1) / SIGMA) for length in (height, width))
    logs = resampled(maps, rows, columns).clamp(FAINTEST, STRONGEST).log().flatten(2)

    def beside(right: int, down: int) -> Tensor:
        x, y = (at[..., 0] + right).clamp(0, width - 1), (at[..., 1] + down).clamp(0, height - 1)
        return logs.gather(2, (y * width + x)[..., None])[..., 0]

    here = beside(0, 0)
    slope_x, slope_y = (beside(1, 0) - beside(-1, 0)) / 2, (beside(0, 1) - beside(0, -1)) / 2
    bend_x, bend_y = beside(1, 0) - 2 * here + beside(-1, 0), beside(0, 1) - 2 * here + beside(0, -1)
    mixed = (beside(1, 1) - beside(1, 0) - beside(0, 1) + 2 * here - beside(-1, 0) - beside(0, -1) + beside(-1, -1)) / 2
    least = torch.finfo(torch.float32).eps
    bend_x, bend_y = bend_x + least, bend_y + least
    determinant = bend_x * bend_y - mixed * mixed
    step = (
        -torch.stack([bend_y * slope_x - mixed * slope_y, bend_x * slope_y - mixed * slope_x], 2)
        / determinant[..., None]
    )
    # Where there is no top, the parabola's may be anywhere.
    believed = step.isfinite().all(2, keepdim=True) & (step.abs() <= 1).all(2, keepdim=True)
    return torch.where(believed, step, 0.0)


def as_body(points: np.ndarray) -> np.ndarray:
    """COCO's 17 points as OpenPose's 18: the neck is in the middle of the shoulders, as sure as the less sure of them."""
    shoulders = points[[LEFT_SHOULDER, RIGHT_SHOULDER]]
    neck = np.append(shoulders[:, :2].mean(axis=0), shoulders[:, 2].min())
    body: np.ndarray = np.insert(points[list(BODY_WITHOUT_NECK)], 1, neck if neck[2] > 0 else 0, axis=0)
    return body.astype(np.float32)
