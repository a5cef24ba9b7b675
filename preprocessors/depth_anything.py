"""Depth Anything: the field's usual depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .looking import IMAGENET, fitted_size, inference_size, largest_size, resampled, standardised
from .nearness import as_hint, inverse, spread
from .networks.network import Network, finite
from .pixels import check_picture
from .preprocessor import Parameter, Preprocessor
from .sizing import Size, size_at

TARGET, PATCH = 518, 14
RELATIVE = tuple(
    f"Depth-Anything-{version}-{width}" for version in ("V2", "V1") for width in ("Small", "Base", "Large")
)
METRIC = tuple(
    f"Depth-Anything-V2-Metric-{place}-{width}"
    for place in ("Indoor", "Outdoor")
    for width in ("Small", "Base", "Large")
)


def predicted(image_bhwc: Tensor, network: Network, name: str, side: int, resolution: int) -> Tensor:
    """(B, H', W') float32: 1 / depth up to scale and shift, metres of the metric networks."""
    size = Size(*image_bhwc.shape[1:3])
    looked = fitted_size(size, Size(side, side), PATCH)
    picture = resampled(image_bhwc.float().movedim(-1, 1).contiguous(), looked, "bicubic", antialias=True).clamp(0, 1)
    found = finite(network(standardised(picture, IMAGENET)).predicted_depth, name, "depths").to(image_bhwc.device)
    return resampled(found.unsqueeze(1), size_at(size, resolution), "bicubic").squeeze(1)


def depth_anything(
    image_bhwc: Tensor,
    *,
    networks: Mapping[str, Network],
    network: str = RELATIVE[0],
    inference_size: int = TARGET,
    resolution: int = 0,
) -> Tensor:
    """Near is white. (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter side at `resolution` (0: its own).

    As DPTImageProcessor and its post-processing in transformers do it, without their 8 bits; metric depths as 1 / metres.
    """
    check_picture(image_bhwc, "image")
    found = predicted(image_bhwc, networks[network], network, inference_size, resolution)
    return as_hint(spread(inverse(found) if network in METRIC else found))


def looks_at(size: Size, parameters: Mapping[str, Any]) -> Size:
    side = parameters["inference_size"]
    return largest_size(size, Size(side, side), PATCH)


DEPTH_ANYTHING = Preprocessor(
    id="DepthAnything",
    name="Depth Anything",
    function=depth_anything,
    parameters=(
        Parameter(
            "network",
            RELATIVE[0],
            "Version 2 is sharper than version 1; Small is fast and free to use, Base and Large are finer. Metric networks know metres, of rooms or "
            "of streets, and keep distant things apart less.",
            options=(*RELATIVE, *METRIC),
        ),
        inference_size(TARGET, PATCH, "shorter side"),
    ),
    annotators=(*RELATIVE, *METRIC),
    chosen_by="network",
    output="depth, near is white",
    description="Depth by Depth Anything, version 1 or 2: for the depth ControlNets.",
    aliases=(
        "DepthAnythingPreprocessor",
        "DepthAnythingV2Preprocessor",
        "Zoe_DepthAnythingPreprocessor",
        "depth_anything",
        "depth_anything_v2",
        "depth map",
        "depth estimation",
    ),
    looks_at=looks_at,
)
