"""Depth of any source as the depth ControlNets were trained on: near is white."""

from __future__ import annotations

import torch
from torch import Tensor

from .nearness import as_hint, between, quantiles
from .normal_from_depth import depth_of
from .preprocessor import Parameter, Preprocessor

EACH, ALL = "each frame", "all frames"


def depth_normalised(
    image_bhwc: Tensor,
    *,
    invert: bool = False,
    low: float = 0.0,
    high: float = 100.0,
    over: str = EACH,
    resolution: int = 0,
) -> Tensor:
    """Black at the percentile `low` of the depths and white at `high`; exchanged where near is dark in the source (`invert`).

    Over "all frames" black is at the lowest of the frames' low percentiles and white at the highest of their high ones, so that a video does not
    flicker. Flat frames are black. (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter side at `resolution` (0: its own).
    """
    depth = depth_of(image_bhwc, resolution)
    black, white = percentiles(depth, low, high)
    if over == ALL:
        black, white = black.min().expand_as(black), white.max().expand_as(white)
    return as_hint(between(depth, white, black) if invert else between(depth, black, white))


def percentiles(values_bhw: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Of each frame (B), (B)."""
    if (low, high) == (0, 100):
        least, most = torch.aminmax(values_bhw.flatten(1), dim=1)
        return least, most
    # Frame by frame, because sorting takes several times their memory.
    found = [torch.stack(quantiles(frame[None], low / 100, high / 100)) for frame in values_bhw]
    black, white = torch.cat(found, dim=1)
    return black, white


DEPTH_NORMALISED = Preprocessor(
    id="DepthNormalised",
    name="Depth Near White",
    function=depth_normalised,
    parameters=(
        Parameter("invert", default=False, tooltip="For sources in which near is dark."),
        Parameter(
            "low",
            default=0.0,
            minimum=0.0,
            maximum=100.0,
            step=0.1,
            tooltip="Up to this percentile it is black (white where inverted). Zoe's are made with 2 and 85, inverted.",
        ),
        Parameter(
            "high", default=100.0, minimum=0.0, maximum=100.0, step=0.1, tooltip="From this percentile on it is white."
        ),
        Parameter(
            "over",
            default=EACH,
            options=(EACH, ALL),
            tooltip="each frame has its own black and white; over all frames a video does not flicker.",
        ),
    ),
    output="depth, near is white",
    description="Stretches depth of any source, as of the host's own depth nodes, from black to white: for the depth ControlNets.",
    aliases=("normalize depth", "depth to controlnet", "MoGe", "depth anything 3", "invert depth"),
    together=("over", ALL),
)
