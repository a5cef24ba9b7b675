"""ZoeDepth: depth in metres."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from .looking import HALVES, fitted_size, inference_size, largest_size, resampled, standardised
from .nearness import as_hint, between, quantiles
from .networks.network import Network, finite
from .pixels import check_picture
from .preprocessor import Parameter, Preprocessor
from .sizing import Size, size_at

NETWORKS = ("ZoeDepth-NYU-KITTI", "ZoeDepth-NYU", "ZoeDepth-KITTI")
SIDE, MULTIPLE = 384, 32
NEAR, FAR = 0.02, 0.85
"""Quantiles of a frame's metres that become white and black, as sd-webui-controlnet has it."""


def border(size: Size) -> Size:
    """Pixels that ZoeDepth adds on each side and takes away again, because its depths are wrong near the edge (isl-org/ZoeDepth, depth_model.py)."""
    return Size(int(sqrt(size.height / 2) * 3), int(sqrt(size.width / 2) * 3))


def target(side: int) -> Size:
    return Size(side, side * 4 // 3)


def zoe_metres(image_bhwc: Tensor, network: Network, name: str, side: int) -> Tensor:
    """(B, H, W) float32 metres."""
    size = Size(*image_bhwc.shape[1:3])
    high, wide = border(size)
    # A mirror shows no more than the picture has.
    mode = "reflect" if high < size.height and wide < size.width else "replicate"
    padded = pad(image_bhwc.float().movedim(-1, 1).contiguous(), (wide, wide, high, high), mode=mode)
    outer = Size(*padded.shape[2:])
    looked = resampled(padded, fitted_size(outer, target(side), MULTIPLE), "bilinear", align_corners=True)
    looked = standardised(looked, HALVES)
    # The network with two heads lets the whole batch vote which one answers, so a frame would depend on its neighbours.
    votes = len(network.settings.bin_configurations) > 1
    parts = looked.split(1) if votes else (looked,)
    found = torch.cat([finite(network(part).predicted_depth, name, "depths") for part in parts]).to(image_bhwc.device)
    whole = resampled(found.unsqueeze(1), outer, "bicubic")
    return whole[:, 0, high : high + size.height, wide : wide + size.width]


def zoe_depth(
    image_bhwc: Tensor,
    *,
    networks: Mapping[str, Network],
    network: str = NETWORKS[0],
    inference_size: int = SIDE,
    resolution: int = 0,
) -> Tensor:
    """Near is white. (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter side at `resolution` (0: its own).

    As ZoeDepthImageProcessor and its post-processing in transformers do it, without the flipped picture; then the metres' 2nd percentile is
    white and the 85th black.
    """
    check_picture(image_bhwc, "image")
    metres = zoe_metres(image_bhwc, networks[network], network, inference_size)
    size = size_at(Size(*image_bhwc.shape[1:3]), resolution)
    metres = resampled(metres.unsqueeze(1), size, "bicubic").squeeze(1)
    near, far = quantiles(metres, NEAR, FAR)
    return as_hint(between(metres, far, near))


def looks_at(size: Size, parameters: Mapping[str, Any]) -> Size:
    return largest_size(size, target(parameters["inference_size"]), MULTIPLE)


ZOE_DEPTH = Preprocessor(
    id="ZoeDepth",
    name="Zoe Depth",
    function=zoe_depth,
    parameters=(
        Parameter(
            "network",
            NETWORKS[0],
            "What it was trained with: rooms (NYU), streets (KITTI), or both, choosing by itself for each picture.",
            options=NETWORKS,
        ),
        inference_size(SIDE, MULTIPLE, "shorter side"),
    ),
    annotators=NETWORKS,
    chosen_by="network",
    output="depth, near is white",
    description="Depth by ZoeDepth, evenly graded by metres: for the depth ControlNets that were trained with it, as those of SDXL.",
    aliases=("Zoe-DepthMapPreprocessor", "depth_zoe", "zoe", "zoe depth map", "depth map"),
    looks_at=looks_at,
)
