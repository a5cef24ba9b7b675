"""DWPose's two networks, as TorchScript: they come with their own programs."""

from __future__ import annotations

from ..networks.torchscript import build_torchscript
from .annotator import HUGGING_FACE, Annotator, File


def _script(
    identifier: str, name: str, size: int, sha256: str, repository: str, licence: str, values_per_pixel: int
) -> Annotator:
    return Annotator(
        identifier,
        (File(name, size, sha256, f"{HUGGING_FACE}{repository}/resolve/main/{name}"),),
        licence,
        "everyone may use it commercially",
        build_torchscript,
        values_per_pixel,
        # The programs have constants in single precision.
        half=False,
        reads="path",
    )


DWPOSES = (
    _script(
        "YOLOX",
        "yolox_l.torchscript.pt",
        217_697_649,
        "80bc14b13c260c24b3014cd42c02994bf52296ab8fa2d80a60b6afe08c93ef42",
        "hr16/yolox-onnx",
        "Apache-2.0 (Megvii-BaseDetection/YOLOX)",
        100,
    ),
    # Five crops, together a third more pixels than the square of YOLOX.
    _script(
        "DWPose",
        "dw-ll_ucoco_384_bs5.torchscript.pt",
        135_059_124,
        "d86a0b2b59fddc0901a7076e9f59c9f8602602133ed72511c693fd11eea23d91",
        "hr16/DWPose-TorchScript-BatchSize5",
        "Apache-2.0 (IDEA-Research/DWPose)",
        150,
    ),
)
