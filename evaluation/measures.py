"""The measures between a hint and a picture that is annotated again: what each says in numbers and in a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..preprocessors.palettes import ADE20K, COCO, Palette
from .delta_e import colour_difference
from .depth import aligned, nearness_score
from .edges import edge_score
from .iou import iou, labels_of
from .normals import angles, normal_score
from .overlay import heat_overlay, lines_overlay
from .pairs import check_pictures
from .ssim import SIDE, ssim, ssim_map

TOLERANCE = 2.0
"""Pixels by which lines may lie beside those that were asked for."""
WHITE = 0.5
"""Grey from which on a pixel is part of a line or of an area."""
STICK = 0.2
"""Of the brightest channel: from here on a pixel is part of a drawn person; blue sticks are that dark."""
STRONGEST_COLOUR = 20.0
"""CIEDE2000 that is shown as the greatest difference."""
STRONGEST_ANGLE = 60.0
"""Degrees, as well."""

Numbers = Mapping[str, Tensor]
"""By name, float32 (B). The first one is the score."""


@dataclass(frozen=True)
class Measure:
    name: str
    higher_is_better: bool
    numbers: Callable[[Tensor, Tensor], Numbers] | None
    """(found, wanted), (B, H, W, 3) float 0..1, both checked. None: of poses, which pictures do not tell."""
    overlay: Callable[[Tensor, Tensor, Tensor], Tensor]
    """(found, wanted, picture), all (B, H, W, 3) float 0..1 -> (B, H, W, 3) float32 in 0..1."""
    each_class: Callable[[Tensor, Tensor], Numbers] | None = None
    """As `numbers`, of the classes that are in any picture by their names; NaN for pictures where a class is in neither."""


def _edge_numbers(found: Tensor, wanted: Tensor) -> Numbers:
    score = edge_score(_grey(found), _grey(wanted), TOLERANCE)
    return {"F1": score.f1, "precision": score.precision, "recall": score.recall}


def _edge_overlay(found: Tensor, wanted: Tensor, picture: Tensor) -> Tensor:
    return lines_overlay(_grey(found) > WHITE, _grey(wanted) > WHITE, picture, TOLERANCE)


def _soft_numbers(found: Tensor, wanted: Tensor) -> Numbers:
    return {"SSIM": ssim(found, wanted), "mean difference": (found - wanted).abs().mean(dim=(1, 2, 3))}


def _soft_overlay(found: Tensor, wanted: Tensor, picture: Tensor) -> Tensor:
    if min(found.shape[1:3]) < SIDE:
        return heat_overlay((found - wanted).abs().mean(dim=3), picture)
    margin = SIDE // 2
    difference = torch.nn.functional.pad((1 - ssim_map(found, wanted)) / 2, (margin,) * 4)
    return heat_overlay(difference, picture)


def _area_numbers(found: Tensor, wanted: Tensor) -> Numbers:
    score = iou(_is_white(found).long(), _is_white(wanted).long(), classes=2, ignore=None)
    return {"mean IoU": score.mean, "IoU of black": score.per_class[:, 0], "IoU of white": score.per_class[:, 1]}


def _area_overlay(found: Tensor, wanted: Tensor, picture: Tensor) -> Tensor:
    return heat_overlay((_is_white(found) != _is_white(wanted)).float(), picture)


def _class_numbers(found: Tensor, wanted: Tensor) -> Numbers:
    colours = _palette_of(wanted).colours()
    there, asked = labels_of(found, colours), labels_of(wanted, colours)
    counts = asked >= 0
    right = ((there == asked) & counts).sum(dim=(1, 2)) / counts.sum(dim=(1, 2))
    return {"mean IoU": iou(there, asked, len(colours)).mean, "pixel accuracy": right}


def _each_class(found: Tensor, wanted: Tensor) -> Numbers:
    palette = _palette_of(wanted)
    colours = palette.colours()
    scores = iou(labels_of(found, colours), labels_of(wanted, colours), len(colours)).per_class
    return {
        names.partition(",")[0]: score
        for (_, names), score in zip(palette.classes, scores.unbind(dim=1), strict=True)
        if not score.isnan().all()
    }


def _class_overlay(found: Tensor, wanted: Tensor, picture: Tensor) -> Tensor:
    colours = _palette_of(wanted).colours()
    there, asked = labels_of(found, colours), labels_of(wanted, colours)
    return heat_overlay(((there != asked) & (asked >= 0)).float(), picture)


def _depth_numbers(found: Tensor, wanted: Tensor) -> Numbers:
    score = nearness_score(_grey(found), _grey(wanted))
    return {"scale-invariant RMSE": score.scale_invariant, "share within 1.25": score.close}


def _depth_overlay(found: Tensor, wanted: Tensor, picture: Tensor) -> Tensor:
    return heat_overlay((aligned(_grey(found), _grey(wanted)) - _grey(wanted)).abs(), picture)


def _normal_numbers(found: Tensor, wanted: Tensor) -> Numbers:
    score = normal_score(found, wanted)
    return {
        "mean angle": score.mean,
        "median angle": score.median,
        "share below 11.25": score.within_11,
        "share below 22.5": score.within_22,
        "share below 30": score.within_30,
    }


def _normal_overlay(found: Tensor, wanted: Tensor, picture: Tensor) -> Tensor:
    return heat_overlay(angles(found, wanted) / STRONGEST_ANGLE, picture)


def _colour_numbers(found: Tensor, wanted: Tensor) -> Numbers:
    difference = colour_difference(found, wanted).flatten(1)
    return {"mean ΔE": difference.mean(dim=1), "largest ΔE": difference.amax(dim=1)}


def _colour_overlay(found: Tensor, wanted: Tensor, picture: Tensor) -> Tensor:
    return heat_overlay(colour_difference(found, wanted) / STRONGEST_COLOUR, picture)


def _pose_overlay(found: Tensor, wanted: Tensor, picture: Tensor) -> Tensor:
    check_pictures("overlay", found, wanted)
    return lines_overlay(found.amax(dim=3) > STICK, wanted.amax(dim=3) > STICK, picture, TOLERANCE)


def _grey(hint: Tensor) -> Tensor:
    return hint.float().mean(dim=3)


def _is_white(hint: Tensor) -> Tensor:
    return _grey(hint) > WHITE


def _palette_of(wanted: Tensor) -> Palette:
    """The palette in which more of the hints' pixels are drawn exactly, ADE20K's where that is as many."""
    codes = _codes(wanted.reshape(-1, 3))
    exact = [int(torch.isin(codes, _codes(palette.colours().to(codes.device))).sum()) for palette in (ADE20K, COCO)]
    return COCO if exact[1] > exact[0] else ADE20K


def _codes(colours: Tensor) -> Tensor:
    red, green, blue = (colours.clamp(0, 1) * 255).round().long().unbind(dim=-1)
    return red * 65536 + green * 256 + blue


LINES = Measure("edge F1 within 2 pixels", True, _edge_numbers, _edge_overlay)
SOFT = Measure("structural similarity", True, _soft_numbers, _soft_overlay)
AREAS = Measure("intersection over union of black and white", True, _area_numbers, _area_overlay)
CLASSES = Measure("mean intersection over union", True, _class_numbers, _class_overlay, _each_class)
DEPTH = Measure("scale-invariant depth error", False, _depth_numbers, _depth_overlay)
NORMALS = Measure("angle between normals", False, _normal_numbers, _normal_overlay)
COLOURS = Measure("colour difference (CIEDE2000)", False, _colour_numbers, _colour_overlay)
POSES = Measure("object keypoint similarity", True, None, _pose_overlay)
