"""Control fidelity: how well a picture, annotated again by the preprocessor that made its hint, gives that hint back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ..preprocessors.pose import Pose
from .errors import EvaluationError
from .measures import AREAS, CLASSES, COLOURS, DEPTH, LINES, NORMALS, POSES, SOFT, Measure
from .oks import pose_score
from .pairs import check_pictures

MEASURES: Mapping[str, Measure] = {
    # Which fits lines, soft edges, depth and classes is as in Li et al., "ControlNet++", 2024, section 4.1: F1, SSIM, an error of depth, mean IoU.
    "Canny": LINES,
    "MLSD": LINES,
    "XDoG": LINES,
    "ScribbleHED": LINES,
    "ScribblePiDiNet": LINES,
    "PyramidCanny": SOFT,
    "LineartStandard": SOFT,
    "PiDiNet": SOFT,
    "SketchPiDiNet": SOFT,
    "HED": SOFT,
    "TEED": SOFT,
    "AnyLine": SOFT,
    "Lineart": SOFT,
    "LineartAnime": SOFT,
    "MangaLine": SOFT,
    "RecolorLuminance": SOFT,
    "RecolorIntensity": SOFT,
    "Binary": AREAS,
    "Threshold": AREAS,
    "OneFormer": CLASSES,
    "Mask2Former": CLASSES,
    "UperNet": CLASSES,
    "SegFormer": CLASSES,
    "DepthAnything": DEPTH,
    "DepthNormalised": DEPTH,
    "DepthPro": DEPTH,
    "MiDaS": DEPTH,
    "ZoeDepth": DEPTH,
    "NormalFromDepth": NORMALS,
    "MiDaSNormal": NORMALS,
    "NormalBAE": NORMALS,
    "DWPose": POSES,
    "OpenPose": POSES,
    "ViTPose": POSES,
    "ColorGrid": COLOURS,
    "Tile": COLOURS,
    "TileSimple": COLOURS,
    "TileGuided": COLOURS,
    "Blur": COLOURS,
}
"""By id of the preprocessor."""

_DRAWINGS = "it turns drawings into hints, and a picture made from one is no drawing"
UNMEASURED: Mapping[str, str] = {
    "Scribble": _DRAWINGS,
    "Invert": _DRAWINGS,
    "Shuffle": "its hints ask for colours and textures at no particular place",
    "SAM": "the colours of its areas have no meaning that two pictures share",
}
"""By id of the preprocessor, why nothing can be measured."""


@dataclass(frozen=True)
class Fidelity:
    name: str
    """Of the measure."""
    score: Tensor
    """(B) float32; NaN where nothing could be compared."""
    numbers: Mapping[str, Tensor]
    """By name, all that the measure says, each (B) float32, the score first."""
    higher_is_better: bool
    each_class: Mapping[str, Tensor] = field(default_factory=dict)
    """Where classes are compared: by name, the intersection over union (B) of each that is in a hint or a picture; NaN where it is in neither."""


def fidelity(
    preprocessor_id: str,
    hint: Tensor,
    again: Tensor,
    poses: tuple[Sequence[Pose], Sequence[Pose]] | None = None,
) -> Fidelity:
    """Compares hints with what the same preprocessor, with the same settings, makes of the pictures made from them.

    hint, again: (B, H, W, 3) float 0..1. `poses`: those of the hints and those of the pictures, which preprocessors of people need. Raises
    EvaluationError where there is no measure, no pose, or where the two are not alike.
    """
    measure = measure_of(preprocessor_id)
    check_pictures("fidelity", again, hint)
    if measure.numbers is not None:
        numbers = measure.numbers(again.float(), hint.float())
    else:
        numbers = _pose_numbers(preprocessor_id, len(hint), poses)
    classes = measure.each_class(again.float(), hint.float()) if measure.each_class else {}
    return Fidelity(measure.name, next(iter(numbers.values())), numbers, measure.higher_is_better, classes)


def overlay(preprocessor_id: str, hint: Tensor, again: Tensor, picture: Tensor) -> Tensor:
    """Where the picture obeys: for lines and people agreed, missing and added ones in green, orange and blue over the dimmed picture; for all else
    the difference as heat. Arguments (B, H, W, 3) float 0..1 -> (B, H, W, 3) float32 in 0..1. Raises EvaluationError as `fidelity`.
    """
    measure = measure_of(preprocessor_id)
    check_pictures("overlay", again, hint)
    return measure.overlay(again.float(), hint.float(), picture)


def measure_of(preprocessor_id: str) -> Measure:
    """Raises EvaluationError where there is none."""
    if preprocessor_id in MEASURES:
        return MEASURES[preprocessor_id]
    expected = "but one whose hints can be compared was expected; choose one of " + ", ".join(MEASURES)
    if preprocessor_id in UNMEASURED:
        raise EvaluationError(
            f"fidelity: found the preprocessor '{preprocessor_id}', of which nothing can be measured because "
            f"{UNMEASURED[preprocessor_id]}, {expected}."
        )
    raise EvaluationError(f"fidelity: found the unknown preprocessor '{preprocessor_id}', {expected}.")


def _pose_numbers(
    preprocessor_id: str, count: int, poses: tuple[Sequence[Pose], Sequence[Pose]] | None
) -> Mapping[str, Tensor]:
    if poses is None or {len(one) for one in poses} != {count}:
        found = "no poses" if poses is None else f"{len(poses[0])} and {len(poses[1])} poses"
        raise EvaluationError(
            f"fidelity: found {found} for {count} hints of '{preprocessor_id}', but one of each hint and one of each picture were expected; "
            "connect the POSE_KEYPOINT outputs of both."
        )
    wanted, found_poses = poses
    score = pose_score(found_poses, wanted)
    return {"F1 of similarities": score.f1, "precision": score.precision, "recall": score.recall}
