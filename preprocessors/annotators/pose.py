"""Networks that find people's points."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..networks.openpose import build_body, build_face, build_hand
from ..networks.transformer import build_transformer
from .annotator import HUGGING_FACE, Annotator, File


def _openpose(part: str, file: str, size: int, sha256: str, build: Callable[..., Any]) -> Annotator:
    return Annotator(
        f"OpenPose-{part}",
        (File(file, size, sha256, f"{HUGGING_FACE}lllyasviel/Annotators/resolve/main/{file}"),),
        "of Carnegie Mellon University's OpenPose, for academic or non-profit research",
        "commercial use needs another licence from the university",
        build,
        256,
        # Without normalisation its numbers have no known bound: without the file nothing shows that half precision holds them.
        half=False,
    )


OPENPOSE = (
    _openpose(
        "body",
        "body_pose_model.pth",
        209_267_595,
        "25a948c16078b0f08e236bda51a385d855ef4c153598947c28c0d47ed94bb746",
        build_body,
    ),
    _openpose(
        "hand",
        "hand_pose_model.pth",
        147_341_049,
        "b76b00d1750901abd07b9f9d8c98cc3385b8fe834a26d4b4f0aad439e75fc600",
        build_hand,
    ),
    _openpose(
        "face",
        "facenet.pth",
        153_718_792,
        "8beb52e548624ffcc4aed12af7aee7dcbfaeea420c75609fee999fe7add79d43",
        build_face,
    ),
)


def _folder(identifier: str, repository: str, architecture: str, values_per_pixel: int, half: bool) -> Annotator:
    address = f"{HUGGING_FACE}{repository}/resolve/main/"
    return Annotator(
        identifier,
        tuple(File(name, address=address + name) for name in ("config.json", "model.safetensors")),
        "Apache-2.0",
        "everyone may use it commercially",
        partial(build_transformer, architecture=architecture),
        values_per_pixel,
        half,
        folder=repository,
        reads="path",
    )


VITPOSES = tuple(
    _folder(f"ViTPose-{name}", f"usyd-community/vitpose-{file}", "VitPoseForPoseEstimation", values, half=True)
    for name, file, values in (
        ("Base", "base-simple", 80),
        ("Plus-Small", "plus-small", 50),
        ("Plus-Base", "plus-base", 100),
        ("Plus-Large", "plus-large", 130),
        ("Plus-Huge", "plus-huge", 160),
    )
)

# Its boxes are fractions of the picture: half precision knows them to a pixel or two only.
RT_DETRS = tuple(
    _folder(f"RT-DETR-R{depth}", f"PekingU/rtdetr_r{depth}vd", "RTDetrForObjectDetection", values, half=False)
    for depth, values in ((18, 100), (50, 200), (101, 200))
)

POSES: tuple[Annotator, ...] = (*OPENPOSE, *VITPOSES, *RT_DETRS)
