"""Networks that find people's points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..networks.openpose import build_body, build_face, build_hand
from .annotator import Annotator, File


def _openpose(part: str, file: str, size: int, sha256: str, build: Callable[..., Any]) -> Annotator:
    return Annotator(
        f"OpenPose-{part}",
        (File(file, size, sha256, f"https://huggingface.co/lllyasviel/Annotators/resolve/main/{file}"),),
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

POSES: tuple[Annotator, ...] = (*OPENPOSE,)
