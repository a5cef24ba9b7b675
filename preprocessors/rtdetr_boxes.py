"""Where people are in pictures, by RT-DETR. Zhao et al., "DETRs Beat YOLOs on Real-time Object Detection" (CVPR 2024)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .errors import PreprocessorError
from .networks.network import Network

SIDE = 640
"""Pixels of the square that the network sees; the picture's aspect is not kept."""


def boxes_of_people(pictures_bchw: Tensor, network: Network, threshold: float) -> list[Tensor]:
    """Pictures (B, 3, H, W) float 0..1 RGB -> of each the boxes (people, 4) float32 of left, top, right, bottom in its pixels, the likeliest first.

    Raises PreprocessorError for a network that does not know people.
    """
    person = person_label(network)
    seen = interpolate(pictures_bchw, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    # On the CPU many at once are no faster, and need the memory of many.
    outputs = [network(some) for some in seen.clamp(0, 1).split(1 if network.device.type == "cpu" else len(seen))]
    logits, parts = (torch.cat([one[name].float() for one in outputs]) for name in ("logits", "pred_boxes"))
    scores, boxes = logits.sigmoid(), corners(parts, *pictures_bchw.shape[2:])
    # Of all classes together as many are findings as the network has boxes: another class of a box may displace a person.
    queries, classes = scores.shape[1:]
    best, index = scores.flatten(1).topk(queries, dim=1)
    found = (best > threshold) & (index % classes == person)
    return [
        of_one[index_of_one[keep] // classes] for of_one, index_of_one, keep in zip(boxes, index, found, strict=True)
    ]


def person_label(network: Network) -> int:
    settings = network.settings
    labels = settings.id2label
    for number, label in labels.items():
        if str(label).lower() == "person":
            return int(number)
    some = ", ".join(str(label) for label in list(labels.values())[:4])
    raise PreprocessorError(
        f"RT-DETR: found a network for {some} and {len(labels) - 4} more, but one that knows 'person' was expected; choose a detector trained on COCO."
    )


def corners(boxes: Tensor, height: int, width: int) -> Tensor:
    """Boxes of x, y of the middle, width, height, all 0..1 -> left, top, right, bottom in pixels."""
    middle, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([middle - half, middle + half], dim=-1) * boxes.new_tensor([width, height, width, height])
