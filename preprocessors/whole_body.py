"""Body, hands and face of people in boxes, by the networks of DWPose. Yang et al., "Effective Whole-body Pose Estimation with Two-stages
Distillation"."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from .errors import PreprocessorError
from .networks.network import Network
from .pose import Person

HEIGHT, WIDTH = 384, 288
"""Pixels, of the crop that the network sees."""
MARGIN = 1.25
"""How much larger than its box a crop is."""
MEAN = (123.675, 116.28, 103.53)
DEVIATION = (58.395, 57.12, 57.375)
"""Of ImageNet, RGB in 0..255."""
SPLIT = 2
"""Places for each pixel: the network says for each of them how likely the point is there, for x and y apart (SimCC)."""
POINTS = 133
PEOPLE_AT_ONCE = 5
"""The published export was traced with five."""
LEAST_SCORE = 0.3

# COCO-WholeBody: 17 points of the body, 6 of the feet, 68 of the face, 21 of each hand.
FACE, LEFT_HAND, RIGHT_HAND = slice(23, 91), slice(91, 112), slice(112, 133)
LEFT_SHOULDER, RIGHT_SHOULDER = 5, 6
BODY_WITHOUT_NECK = (0, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
"""OpenPose's points of the body, without the second."""
EYES = [14, 15]
"""Right and left of the body; OpenPose's face ends with them, COCO's does not have them."""


def whole_bodies(pictures_bchw: Tensor, boxes: Sequence[Tensor], network: Network) -> list[tuple[Person, ...]]:
    """Pictures (B, 3, H, W) float 0..255 RGB and of each the boxes (people, 4) of left, top, right, bottom -> the people of each.

    People of all pictures go through the network together; those of whom nothing is seen are left out. Raises PreprocessorError for a network that
    is no DWPose.
    """
    numbers = [number for number, of_one in enumerate(boxes) for _ in range(len(of_one))]
    people: list[list[Person]] = [[] for _ in boxes]
    if not numbers:
        return [() for _ in boxes]
    areas = areas_of(torch.cat([of_one.float().cpu() for of_one in boxes]))
    found = []
    for start in range(0, len(numbers), PEOPLE_AT_ONCE):
        part = range(start, min(start + PEOPLE_AT_ONCE, len(numbers)))
        batch = torch.zeros((PEOPLE_AT_ONCE, 3, HEIGHT, WIDTH), device=pictures_bchw.device)
        for place, index in enumerate(part):
            batch[place] = normalised(crop(pictures_bchw[numbers[index]], areas[index]))
        found.append(points_in_crops(network(batch))[: len(part)])
    points = in_picture(torch.cat(found).cpu(), areas).numpy()
    for number, of_person in zip(numbers, points, strict=True):
        person = as_person(of_person)
        if person is not None:
            people[number].append(person)
    return [tuple(of_one) for of_one in people]


def areas_of(boxes: Tensor) -> Tensor:
    """Boxes (people, 4) of left, top, right, bottom -> what the network sees of each, (people, 4) of x, y of the middle, width, height."""
    left, top, right, bottom = boxes.unbind(dim=1)
    width, height = (right - left) * MARGIN, (bottom - top) * MARGIN
    aspect = WIDTH / HEIGHT
    return torch.stack(
        [
            (left + right) / 2,
            (top + bottom) / 2,
            torch.maximum(width, height * aspect),
            torch.maximum(height, width / aspect),
        ],
        dim=1,
    )


def crop(picture_chw: Tensor, area: Tensor) -> Tensor:
    """(3, HEIGHT, WIDTH) of the picture, black outside of it."""
    x, y, width, height = area.tolist()
    rows, columns = (torch.arange(count, device=picture_chw.device, dtype=torch.float32) for count in (HEIGHT, WIDTH))
    down = (rows - HEIGHT / 2) * (height / HEIGHT) + y
    right = (columns - WIDTH / 2) * (width / WIDTH) + x
    # In the units of grid_sample, -1 and 1 are the outer edges of the outer pixels.
    down, right = (2 * down + 1) / picture_chw.shape[1] - 1, (2 * right + 1) / picture_chw.shape[2] - 1
    grid = torch.stack([right.expand(HEIGHT, WIDTH), down[:, None].expand(HEIGHT, WIDTH)], dim=-1)
    return grid_sample(picture_chw[None], grid[None], mode="bilinear", padding_mode="zeros", align_corners=False)[0]


def normalised(picture_chw: Tensor) -> Tensor:
    mean, deviation = (picture_chw.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    return (picture_chw - mean) / deviation


def points_in_crops(output: object) -> Tensor:
    """What the network says of places along x and y, (people, 133, 576) and (people, 133, 768) -> (people, 133, 3) float32: x, y in pixels of the
    crop, score; score 0 where it says nothing."""
    shapes = [tuple(part.shape[1:]) for part in output] if isinstance(output, tuple | list) else []
    if shapes[:2] != [(POINTS, WIDTH * SPLIT), (POINTS, HEIGHT * SPLIT)]:
        raise PreprocessorError(
            f"DWPose: found an output of {shapes or type(output).__name__} for each person, but ({POINTS}, {WIDTH * SPLIT}) and "
            f"({POINTS}, {HEIGHT * SPLIT}) were expected; put the published dw-ll_ucoco_384_bs5.torchscript.pt there."
        )
    assert isinstance(output, tuple | list)
    (likely_x, x), (likely_y, y) = (part.float().max(dim=-1) for part in output[:2])
    score = torch.minimum(likely_x, likely_y).clamp(min=0)
    return torch.stack([x / SPLIT, y / SPLIT, score], dim=-1)


def in_picture(points: Tensor, areas: Tensor) -> Tensor:
    """Points in pixels of their crop -> in pixels of the picture."""
    middle, size = areas[:, None, :2], areas[:, None, 2:]
    crop_size = points.new_tensor([WIDTH, HEIGHT])
    places = points[..., :2] / crop_size * size + middle - size / 2
    return torch.cat([places, points[..., 2:]], dim=-1)


def as_person(points: np.ndarray) -> Person | None:
    """The 133 points as OpenPose orders them, with the neck between the shoulders, those of a low score as not seen; None where all are."""
    shoulders = points[[LEFT_SHOULDER, RIGHT_SHOULDER]]
    neck = shoulders.mean(axis=0)
    # Between shoulders of which one is a guess, there is no neck.
    neck[2] = shoulders[:, 2].min() if (shoulders[:, 2] > LEAST_SCORE).all() else 0
    points = np.where(points[:, 2:] >= LEAST_SCORE, points, np.float32(0))
    body = points[list(BODY_WITHOUT_NECK)]
    body = np.insert(body, 1, neck if neck[2] > 0 else 0, axis=0).astype(np.float32)
    face = np.concatenate([points[FACE], body[EYES]]) if points[FACE].any() else None
    left_hand, right_hand = (points[hand] if points[hand].any() else None for hand in (LEFT_HAND, RIGHT_HAND))
    if not body.any() and face is None and left_hand is None and right_hand is None:
        return None
    return Person(body, left_hand, right_hand, face)
