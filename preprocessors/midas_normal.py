"""Surface normals from MiDaS's depth: what the normal model of ControlNet 1.0 was trained with."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from .midas import NETWORK, NETWORKS, looks_at, midas_depth
from .nearness import as_hint
from .networks.network import Network
from .normal_from_depth import NORMAL_FROM_DEPTH, normal_from_depth
from .pixels import check_picture
from .preprocessor import Preprocessor


def midas_normal(
    image_bhwc: Tensor,
    *,
    networks: Mapping[str, Network],
    network: str = NETWORKS[0],
    channels: str = "z y x",
    a: float = 2 * math.pi,
    background: float = 0.1,
    resolution: int = 0,
) -> Tensor:
    """Directions as colours, 0.5 for 0. (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter side at `resolution` (0: its own)."""
    check_picture(image_bhwc, "image")
    depth = as_hint(midas_depth(image_bhwc, networks[network], network, resolution))
    return normal_from_depth(depth, channels=channels, a=a, background=background, depth_range=1.0)


MIDAS_NORMAL = Preprocessor(
    id="MiDaSNormal",
    name="MiDaS Normal",
    function=midas_normal,
    parameters=(NETWORK, *(one for one in NORMAL_FROM_DEPTH.parameters if one.id != "depth_range")),
    annotators=NETWORKS,
    chosen_by="network",
    output="surface normals as colours",
    description="Normals from MiDaS's depth: for the normal ControlNet of version 1.0.",
    aliases=("MiDaS-NormalMapPreprocessor", "normal_midas", "normal map"),
    looks_at=looks_at,
)
