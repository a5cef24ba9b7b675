"""MiDaS: the depth that the first depth ControlNets were trained with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .looking import HALVES, resampled, standardised
from .nearness import as_hint, spread
from .networks.network import Network, finite
from .pixels import check_picture
from .preprocessor import Parameter, Preprocessor
from .sizing import Size, size_at

NETWORKS = ("DPT-Hybrid-MiDaS", "DPT-Large")
SIDE = 384
"""Pixels of the square that both published networks see."""


def midas_depth(image_bhwc: Tensor, network: Network, name: str, resolution: int) -> Tensor:
    """(B, H', W') float32: 1 / depth up to scale and shift, in hundreds to thousands."""
    # Other sizes are refused by the hybrid network, and other aspects by both.
    side = int(network.settings.image_size)
    picture = image_bhwc.float().movedim(-1, 1).contiguous()
    picture = resampled(picture, Size(side, side), "bicubic", antialias=True).clamp(0, 1)
    found = finite(network(standardised(picture, HALVES)).predicted_depth, name, "depths").to(image_bhwc.device)
    return resampled(found.unsqueeze(1), size_at(Size(*image_bhwc.shape[1:3]), resolution), "bicubic").squeeze(1)


def midas(
    image_bhwc: Tensor, *, networks: Mapping[str, Network], network: str = NETWORKS[0], resolution: int = 0
) -> Tensor:
    """Near is white. (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter side at `resolution` (0: its own).

    As DPTImageProcessor and its post-processing in transformers do it, without their 8 bits.
    """
    check_picture(image_bhwc, "image")
    return as_hint(spread(midas_depth(image_bhwc, networks[network], network, resolution)))


def looks_at(size: Size, parameters: Mapping[str, Any]) -> Size:
    return Size(SIDE, SIDE)


NETWORK = Parameter(
    "network",
    NETWORKS[0],
    "The hybrid network is the one that the first depth ControlNets were trained with; the large one is finer and slower.",
    options=NETWORKS,
)

MIDAS = Preprocessor(
    id="MiDaS",
    name="MiDaS Depth",
    function=midas,
    parameters=(NETWORK,),
    annotators=NETWORKS,
    chosen_by="network",
    output="depth, near is white",
    description="Depth by MiDaS: for the depth ControlNets of Stable Diffusion 1.5, which were trained with it.",
    aliases=("MiDaS-DepthMapPreprocessor", "depth_midas", "midas depth map", "depth estimation", "DPT", "depth map"),
    looks_at=looks_at,
)
