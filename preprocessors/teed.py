"""Soft edges by TEED, and AnyLine, which adds to them what is darker than its surroundings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from .lineart_standard import lineart_standard
from .networks.network import Network
from .preprocessor import Parameter, Preprocessor
from .strokes import SAFE_STEPS, made_safe
from .through import through

SIGMA, THRESHOLD = 2.0, 3
"""Of AnyLine's standard line art."""


def edges(image_bhwc: Tensor, network: Network, steps: int, resolution: int) -> Tensor:
    """(B, H', W', 1) float32 in 0..1."""
    return made_safe(through(image_bhwc, resolution, lambda picture: network(picture).sigmoid()), steps)


def teed(
    image_bhwc: Tensor, *, networks: Mapping[str, Network], safe_steps: int = SAFE_STEPS, resolution: int = 0
) -> Tensor:
    """Soft white edges on black in `safe_steps` + 1 levels (0: all). (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter
    side at `resolution` (0: its own).
    """
    return edges(image_bhwc, networks["TEED"], safe_steps, resolution).repeat(1, 1, 1, 3)


def anyline(
    image_bhwc: Tensor,
    *,
    networks: Mapping[str, Network],
    lower: float = 0.0,
    upper: float = 1.0,
    smallest: int = 12,
    resolution: int = 0,
) -> Tensor:
    """TEED's edges, and over them the lines of `lineart_standard` between `lower` and `upper` in spots of at least `smallest` pixels.

    (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter side at `resolution` (0: its own).
    """
    soft = edges(image_bhwc, networks["AnyLine"], SAFE_STEPS, resolution)
    lines = lineart_standard(image_bhwc, sigma=SIGMA, intensity_threshold=THRESHOLD, resolution=resolution)[..., :1]
    return with_lines(soft, lines.to(soft.device), lower=lower, upper=upper, smallest=smallest)


def with_lines(soft: Tensor, lines: Tensor, *, lower: float = 0.0, upper: float = 1.0, smallest: int = 12) -> Tensor:
    """Soft edges and lines, both (B, H, W, 1) in 0..1, in one: (B, H, W, 3)."""
    lines = torch.where((lines >= lower) & (lines <= upper), lines, 0)
    kept = torch.stack([in_large_spots(frame[..., 0], smallest) for frame in lines]).unsqueeze(-1)
    return (1 - (1 - soft) * (1 - kept)).repeat(1, 1, 1, 3)


def in_large_spots(lines_hw: Tensor, smallest: int) -> Tensor:
    """The lines without the spots, connected by their sides, that have fewer pixels."""
    import cv2  # here, because importing the pack must stay fast

    marked = (lines_hw > 0).cpu().numpy().astype(np.uint8)
    _, spots, statistics, _ = cv2.connectedComponentsWithStats(marked, connectivity=4)
    large = statistics[:, cv2.CC_STAT_AREA] >= smallest
    return torch.where(torch.from_numpy(large[spots]).to(lines_hw.device), lines_hw, 0)


TEED = Preprocessor(
    id="TEED",
    name="TEED Soft Edge",
    function=teed,
    parameters=(
        Parameter(
            "safe_steps",
            default=SAFE_STEPS,
            minimum=0,
            maximum=10,
            step=1,
            tooltip="How many steps of grey the edges have above black, so that less of the picture shows through; 0: all.",
        ),
    ),
    annotators=("TEED",),
    output="soft white edges on black",
    description="Soft edges with much detail by a very small network (0.2 MB): for the softedge ControlNets.",
    aliases=("TEEDPreprocessor", "softedge_teed", "soft edge", "TEED"),
)

ANYLINE = Preprocessor(
    id="AnyLine",
    name="AnyLine",
    function=anyline,
    parameters=(
        Parameter(
            "lower", default=0.0, minimum=0.0, maximum=1.0, step=0.01, tooltip="Lines fainter than this are left out."
        ),
        Parameter(
            "upper",
            default=1.0,
            minimum=0.0,
            maximum=1.0,
            step=0.01,
            tooltip="Lines brighter than this are left out.",
        ),
        Parameter(
            "smallest",
            default=12,
            minimum=0,
            maximum=10000,
            step=1,
            tooltip="Spots of fewer pixels than this are left out.",
        ),
    ),
    annotators=("AnyLine",),
    output="soft white lines on black",
    description="Edges and fine lines in one: for MistoLine and the lineart ControlNets. It was made for a resolution of 1280.",
    aliases=("AnyLineArtPreprocessor_aux", "softedge_anyline", "mistoline", "TheMistoAI"),
)
