"""DWPose's two networks, as TorchScript: they come with their own programs."""

from __future__ import annotations

from ..networks.torchscript import build_torchscript
from .annotator import HUGGING_FACE, Annotator, File


def _script(identifier: str, name: str, repository: str, licence: str, values_per_pixel: int) -> Annotator:
    return Annotator(
        identifier,
        (File(name, address=f"{HUGGING_FACE}{repository}/resolve/main/{name}"),),
        licence,
        "everyone may use it commercially",
        build_torchscript,
        values_per_pixel,
        # The programs have constants in single precision.
        half=False,
        reads="path",
    )


DWPOSES = (
    _script("YOLOX", "yolox_l.torchscript.pt", "hr16/yolox-onnx", "Apache-2.0 (Megvii-BaseDetection/YOLOX)", 100),
    # Five crops, together a third more pixels than the square of YOLOX.
    _script(
        "DWPose",
        "dw-ll_ucoco_384_bs5.torchscript.pt",
        "hr16/DWPose-TorchScript-BatchSize5",
        "Apache-2.0 (IDEA-Research/DWPose)",
        150,
    ),
)
