"""Areas: how far the classes of a picture cover those that it was asked to have."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import EvaluationError
from .pairs import check_pictures, check_shapes

NO_CLASS = -1
"""The label of pixels that belong to no class."""


@dataclass(frozen=True)
class IouScore:
    """Intersection over union, float32 in 0..1."""

    per_class: Tensor
    """(N, classes); NaN for a class that is in neither map."""

    @property
    def mean(self) -> Tensor:
        """(N), over the classes that are in either map; NaN where there is none."""
        return self.per_class.nanmean(dim=1)


def iou(found: Tensor, wanted: Tensor, classes: int, ignore: int | None = NO_CLASS) -> IouScore:
    """Compares label maps (N, H, W) of whole numbers from 0 to `classes` - 1. (Everingham et al., "The PASCAL VOC Challenge", 2010, section 4.3;
    here for each picture alone.)

    Pixels whose wanted label is `ignore` do not count; elsewhere a found `ignore` belongs to no class, so it only misses the wanted one.
    Raises EvaluationError for unequal shapes and other labels.
    """
    check_shapes("iou", found, wanted, None)
    for labels in (found, wanted):
        known = (labels >= 0) & (labels < classes)
        if ignore is not None:
            known = known | (labels == ignore)
        if labels.is_floating_point() or not bool(known.all()):
            other = f"{labels.dtype} labels" if labels.is_floating_point() else f"label {int(labels[~known][0])}"
            raise EvaluationError(
                f"iou: found {other}, but whole numbers from 0 to {classes - 1}"
                f"{'' if ignore is None else f' or {ignore} (no class)'} were expected; give the number of classes that the maps were made with."
            )
    found, wanted = found.long(), wanted.long()
    if ignore is not None:
        found = torch.where(found == ignore, classes, found)
        wanted = torch.where(wanted == ignore, classes, wanted)
    side = classes + 1
    picture = torch.arange(len(found), device=found.device).reshape(-1, 1, 1)
    cells = (picture * side + wanted) * side + found
    counts = torch.bincount(cells.flatten(), minlength=len(found) * side * side).reshape(-1, side, side)[:, :classes]
    both = counts[:, :, :classes].diagonal(dim1=1, dim2=2)
    either = counts.sum(dim=2) + counts.sum(dim=1)[:, :classes] - both
    return IouScore(both.float() / either.float())  # 0 / 0 is NaN


def labels_of(picture: Tensor, colours: Tensor) -> Tensor:
    """The class of the nearest colour at every pixel, in 8-bit RGB: (N, H, W, 3) float 0..1, (classes, 3) float 0..1 -> (N, H, W) int64.

    What is nearest to black has NO_CLASS, where no class is black: hints leave it where nothing is asked for. Of two colours as near, the first: classes
    of one colour, of which ADE20K has two, are one.
    Raises EvaluationError for anything but finite RGB pictures.
    """
    check_pictures("iou", picture, picture)
    eight_bit = (picture.clamp(0, 1) * 255).round().long()
    codes, places = (eight_bit[..., 0] * 65536 + eight_bit[..., 1] * 256 + eight_bit[..., 2]).unique(
        return_inverse=True
    )
    palette = (colours.to(picture.device) * 255).round().long()
    has_black = bool((palette == 0).all(dim=1).any())
    if not has_black:
        palette = torch.cat([palette, torch.zeros_like(palette[:1])])
    # So many colours at once that a photograph's distances to 150 classes take some megabytes.
    nearest = torch.cat([_nearest(part, palette) for part in codes.split(1 << 14)])
    if not has_black:
        nearest = torch.where(nearest == len(colours), NO_CLASS, nearest)
    return nearest[places]


def _nearest(codes: Tensor, palette: Tensor) -> Tensor:
    colours = torch.stack([codes // 65536, codes // 256 % 256, codes % 256], dim=1)
    return (colours[:, None] - palette[None]).square().sum(dim=2).argmin(dim=1)
