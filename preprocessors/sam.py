"""Everything in the picture as areas, by Segment Anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from .looking import resampled, standardised
from .networks.network import Network, finite
from .networks.sam import SegmentAnything
from .pixels import check_picture
from .preprocessor import Parameter, Preprocessor
from .segment_colours import seeded_colours
from .segmentation import network_choice
from .sizing import Size, size_at

NETWORKS = ("sam-vit-base", "sam-vit-large", "sam-vit-huge")

GOOD, STABLE, OFFSET, SAME = 0.88, 0.95, 1.0, 0.7
"""Which masks count, as Segment Anything's own generator has it: how good the network must find it; how much of its area must stay when the
threshold moves by the offset up or down; and how much the boxes of two may have in common before the worse one is left out."""
POINTS_AT_ONCE = 64
NUMBERS_AT_ONCE = 1 << 24
"""Of masks at the hint's size: 64 MB."""


class Masks(NamedTuple):
    logits: Tensor
    """(n, h, w) float32, as the network gives them."""
    quality: Tensor
    """(n)"""
    boxes: Tensor
    """(n, 4) float32: left, top, right, bottom in pixels of the hint."""
    areas: Tensor
    """(n) pixels of the hint."""


def sam(
    image_bhwc: Tensor,
    *,
    networks: Mapping[str, Network],
    network: str = NETWORKS[0],
    points_per_side: int = 16,
    seed: int = 0,
    resolution: int = 0,
) -> Tensor:
    """Areas in colours of their own on black, the smaller on the larger. (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter
    side at `resolution` (0: its own).
    """
    check_picture(image_bhwc, "image")
    chosen = networks[network]
    module, size = cast(SegmentAnything, chosen.module), Size(*image_bhwc.shape[1:3])
    seen, target = module.sight.size_of(size), size_at(size, resolution)
    picture = resampled(image_bhwc.float().movedim(-1, 1), seen, "bilinear", antialias=True)
    picture = standardised(picture, module.sight.statistics)
    every = chosen(picture=pad(picture, (0, module.side - seen.width, 0, module.side - seen.height)))
    scale = Scale(module.side, seen, target)
    points = grid(points_per_side, seen)
    hints = [
        painted(kept(found(chosen, finite(features, network, "scores")[None], points, scale)), scale, seed)
        for features in every
    ]
    return torch.stack(hints).to(image_bhwc.device)


class Scale(NamedTuple):
    """From what the network sees to the hint."""

    side: int
    """Of the square that it sees."""
    seen: Size
    """Of the picture in its corner."""
    target: Size

    def enlarged(self, logits_nhw: Tensor) -> Iterator[Tensor]:
        """(n, h, w) -> (some, *target) at a time: through the square, without what lies beyond the picture."""
        step = max(1, NUMBERS_AT_ONCE // max(self.side**2, self.target.height * self.target.width))
        for part in logits_nhw.split(step):
            square = interpolate(part[:, None], (self.side, self.side), mode="bilinear", align_corners=False)
            seen = square[..., : self.seen.height, : self.seen.width]
            yield interpolate(seen, tuple(self.target), mode="bilinear", align_corners=False)[:, 0]


def grid(per_side: int, size: Size) -> list[tuple[float, float]]:
    """The middles of equal cells, `per_side` in each direction, row by row: x and y."""
    middles = [(number + 0.5) / per_side for number in range(per_side)]
    return [(x * size.width, y * size.height) for y in middles for x in middles]


def found(network: Network, features: Tensor, points: list[tuple[float, float]], scale: Scale) -> Masks:
    """The masks at these points that are good and stable."""
    parts = [
        part(network, features, points[at : at + POINTS_AT_ONCE], scale) for at in range(0, len(points), POINTS_AT_ONCE)
    ]
    return Masks(*(torch.cat(column) for column in zip(*parts, strict=True)))


def part(network: Network, features: Tensor, points: list[tuple[float, float]], scale: Scale) -> Masks:
    logits, quality = (values.flatten(0, 1).float() for values in network(features=features, points=points))
    good = quality > GOOD
    logits, quality = logits[good], quality[good]
    stable, boxes, areas = [], [], []
    for masks in scale.enlarged(logits):
        inner, outer = ((masks > limit).flatten(1).sum(1) for limit in (OFFSET, -OFFSET))
        stable.append(inner / outer > STABLE)
        boxes.append(boxes_of(masks > 0))
        areas.append((masks > 0).flatten(1).sum(1))
    if not stable:
        nothing = logits.new_zeros(0)
        return Masks(logits, nothing, nothing.reshape(0, 4), nothing.long())
    keep = torch.cat(stable)
    return Masks(logits[keep], quality[keep], torch.cat(boxes)[keep], torch.cat(areas)[keep])


def boxes_of(masks_nhw: Tensor) -> Tensor:
    """(n, h, w) bool -> (n, 4) float32: the first and last column and row of each; zeros of an empty one."""
    sides = []
    for along in (1, 2):
        used = masks_nhw.any(along)
        places = torch.arange(used.shape[1], device=used.device)
        first = torch.where(used, places, used.shape[1]).amin(1)
        sides.append((first * used.any(1), (places * used).amax(1)))
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, right, bottom], 1).float()


def kept(masks: Masks) -> Masks:
    """Of masks with nearly the same box, the best; from the largest to the smallest."""
    from torchvision.ops import nms  # here, because importing the pack must stay fast

    best = nms(masks.boxes.cpu(), masks.quality.cpu(), SAME).to(masks.areas.device)
    best = best[masks.areas[best].argsort(descending=True, stable=True)]
    return Masks(*(column[best] for column in masks))


def painted(masks: Masks, scale: Scale, seed: int) -> Tensor:
    """(*target, 3) float32."""
    numbers = torch.zeros(tuple(scale.target), dtype=torch.int64, device=masks.logits.device)
    number = 0
    for logits in scale.enlarged(masks.logits):
        for mask in logits > 0:
            number += 1
            numbers.masked_fill_(mask, number)
    black = torch.zeros(1, 3)
    return torch.cat([black, seeded_colours(number, seed)]).to(numbers.device)[numbers]


def looks_at(size: Size, parameters: Mapping[str, Any]) -> Size:
    return Size(1024, 1024)


SAM = Preprocessor(
    id="SAM",
    name="Segment Anything",
    function=sam,
    parameters=(
        network_choice(NETWORKS, "Larger ones are finer and slower."),
        Parameter(
            "points_per_side",
            16,
            "Points at which to look for areas, in each direction: more finds smaller ones, and takes time with its square.",
            minimum=1,
            maximum=64,
            step=1,
        ),
        Parameter("seed", 0, "Chooses the colours.", minimum=0, maximum=2**53 - 1, step=1),
    ),
    annotators=NETWORKS,
    chosen_by="network",
    output="areas in colours of their own on black",
    description="Everything in the picture as areas without names, each in its own colour.",
    aliases=("SAMPreprocessor", "mobile_sam", "sam segmentor", "segment anything", "mask generation"),
    looks_at=looks_at,
)
