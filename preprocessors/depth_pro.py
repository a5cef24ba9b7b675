"""Depth Pro: sharp depth in metres."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .looking import HALVES, resampled, standardised
from .nearness import as_hint, inverse, spread
from .networks.network import Network, finite
from .pixels import check_picture
from .preprocessor import Preprocessor
from .sizing import Size, size_at

SIDE = 1536
"""Pixels of the square that the published network sees."""


def depth_pro_metres(image_bhwc: Tensor, network: Network, resolution: int) -> Tensor:
    """(B, H', W') float32 metres, from 0.0001 to 10000."""
    settings = network.settings
    side = round(settings.patch_size / min(settings.scaled_images_ratios))
    picture = resampled(image_bhwc.float().movedim(-1, 1).contiguous(), Size(side, side), "bilinear")
    found = network(standardised(picture, HALVES))
    nearness = finite(found.predicted_depth, "DepthPro", "depths").to(image_bhwc.device)
    if found.field_of_view is not None:
        # The network measures in widths of the picture at a focal length of one.
        angle = finite(found.field_of_view, "DepthPro", "depths").to(image_bhwc.device)
        nearness = nearness * (2 * torch.tan(torch.deg2rad(angle) / 2)).reshape(-1, 1, 1)
    size = size_at(Size(*image_bhwc.shape[1:3]), resolution)
    return 1.0 / resampled(nearness.unsqueeze(1), size, "bilinear").squeeze(1).clamp(1e-4, 1e4)


def depth_pro(image_bhwc: Tensor, *, networks: Mapping[str, Network], resolution: int = 0) -> Tensor:
    """Near is white. (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter side at `resolution` (0: its own).

    As DepthProImageProcessor and its post-processing in transformers do it; then 1 / metres.
    """
    check_picture(image_bhwc, "image")
    return as_hint(spread(inverse(depth_pro_metres(image_bhwc, networks["DepthPro"], resolution))))


def looks_at(size: Size, parameters: Mapping[str, Any]) -> Size:
    return Size(SIDE, SIDE)


DEPTH_PRO = Preprocessor(
    id="DepthPro",
    name="Depth Pro",
    function=depth_pro,
    parameters=(),
    annotators=("DepthPro",),
    output="depth, near is white",
    description="Depth by Depth Pro, with sharp edges, at 1536 pixels whatever the picture's size: slow, for the depth ControlNets.",
    aliases=("DepthPro", "ml-depth-pro", "depth map"),
    looks_at=looks_at,
)
