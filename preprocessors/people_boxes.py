"""Where people are in a picture, by YOLOX. Ge et al., "YOLOX: Exceeding YOLO Series in 2021"."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .errors import PreprocessorError
from .networks.network import Network

SIDE = 640
"""Pixels, of the square that the network sees."""
GROUND = 114.0
"""Of 255, around the picture in the square."""
STRIDES = (8, 16, 32)
"""Pixels from cell to cell of the grids whose cells each say of one box, in the order of the output."""
CELLS = sum((SIDE // stride) ** 2 for stride in STRIDES)
LEAST_SCORE = 0.3
LARGEST_OVERLAP = 0.45
"""Of the areas of two boxes: beyond it they are the same person, and the one with the lower score goes."""


def people_boxes(picture_chw: Tensor, network: Network) -> Tensor:
    """A picture (3, H, W) float 0..255 RGB -> boxes (people, 4) float32 of left, top, right, bottom in its pixels, the likeliest first.

    One picture at a time: the published export was traced with one. Raises PreprocessorError for a network that is no YOLOX.
    """
    height, width = picture_chw.shape[1:]
    # The network was trained with OpenCV's pictures, whose channels are blue, green, red.
    square, size = letterboxed(picture_chw.flip(0))
    found = network(square[None])
    found = found[0] if isinstance(found, tuple | list) else found
    if not isinstance(found, Tensor) or found.ndim != 3 or found.shape[:2] != (1, CELLS) or found.shape[2] < 6:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise PreprocessorError(
            f"YOLOX: found an output of {shape} for one picture, but (1, {CELLS}, 85) was expected; put the published yolox_l.torchscript.pt there."
        )
    boxes, scores = decoded(found[0].float())
    boxes = boxes * boxes.new_tensor([width / size[1], height / size[0]] * 2)
    return most_likely(boxes, scores).to(picture_chw.device)


def letterboxed(picture_chw: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """The picture in the upper left of the square, and its height and width there."""
    height, width = picture_chw.shape[1:]
    scale = min(SIDE / height, SIDE / width)
    size = max(1, int(height * scale)), max(1, int(width * scale))
    square = picture_chw.new_full((3, SIDE, SIDE), GROUND)
    square[:, : size[0], : size[1]] = interpolate(picture_chw[None], size, mode="bilinear", align_corners=False)[0]
    return square, size


def decoded(cells: Tensor) -> tuple[Tensor, Tensor]:
    """What the cells say, (cells, 5 + classes) -> boxes (cells, 4) of left, top, right, bottom in the square, and how likely each is a person."""
    corners, strides = [], []
    for stride in STRIDES:
        row, column = torch.meshgrid(torch.arange(SIDE // stride), torch.arange(SIDE // stride), indexing="ij")
        corners.append(torch.stack([column, row], dim=-1).reshape(-1, 2))
        strides.append(torch.full((len(corners[-1]), 1), stride))
    grid, stride_of = torch.cat(corners).to(cells), torch.cat(strides).to(cells)
    centres, sizes = (cells[:, :2] + grid) * stride_of, cells[:, 2:4].exp() * stride_of
    # "Person" is the first class of COCO.
    return torch.cat([centres - sizes / 2, centres + sizes / 2], dim=1), cells[:, 4] * cells[:, 5]


def most_likely(boxes: Tensor, scores: Tensor) -> Tensor:
    """The boxes that are people, one for each, the likeliest first."""
    from torchvision.ops import nms  # here, because importing the pack must stay fast

    likely = (scores > LEAST_SCORE) & boxes.isfinite().all(dim=1)
    boxes, scores = boxes[likely], scores[likely]
    return boxes[nms(boxes, scores, LARGEST_OVERLAP)]
