"""Surface normals by NormalBAE."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .networks.network import Network
from .preprocessor import Preprocessor
from .through import through

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
"""Of ImageNet's pictures, RGB."""


def normalbae(image_bhwc: Tensor, *, networks: Mapping[str, Network], resolution: int = 0) -> Tensor:
    """Normals, each of x, y, z as (n + 1) / 2. (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter side at `resolution`
    (0: its own).
    """

    def normals(picture: Tensor) -> Tensor:
        mean, deviation = (picture.new_tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, DEVIATION))
        found: Tensor = networks["NormalBAE"](((picture - mean) / deviation).contiguous())
        return ((found + 1) / 2).clamp(0, 1)

    return through(image_bhwc, resolution, normals)


NORMAL_BAE = Preprocessor(
    id="NormalBAE",
    name="NormalBAE",
    function=normalbae,
    parameters=(),
    annotators=("NormalBAE",),
    output="surface normals: x in red, y in green, z in blue, 0 in the middle of each",
    description="Surface normals of a photograph by a network (291 MB): for the normalbae ControlNets.",
    aliases=("BAE-NormalMapPreprocessor", "normal_bae", "bae normal map", "normal map", "normalbae"),
)
