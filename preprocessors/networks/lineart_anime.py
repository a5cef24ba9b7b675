"""Line art of anime: a U-Net down to one pixel, as pix2pix's. Xiang et al., "Adversarial Open Domain Adaptation for Sketch-to-Photo Synthesis"
(WACV 2022), trained for Anime2Sketch.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import instance_norm, leaky_relu

from .weights import NOWHERE, check_weights, filled, shapes, unmarked

WIDTH = 64
"""Channels at half the picture's size."""
WIDTHS = (1, 2, 4, 8, 8, 8, 8, 8)
"""Of each halving, in those."""
DEEPEST = len(WIDTHS) - 1
MULTIPLE = 2 ** len(WIDTHS)
SLOPE = 0.2


class LineartAnime(nn.Module):
    """RGB pictures (B, 3, H, W), -1..1, both sides multiples of 256 -> how light the paper is, -1..1, (B, 1, H, W) float32: lines are dark."""

    def __init__(self, width: int = WIDTH, operations: Any = nn, **factory: Any):
        super().__init__()
        settings = {"stride": 2, "padding": 1, **factory}
        widths = [factor * width for factor in WIDTHS]
        self.downs = nn.ModuleList(
            operations.Conv2d(inside, outside, 4, **settings) for inside, outside in pairwise([3, *widths])
        )
        # All but the deepest get what came down beside what comes up.
        self.ups = nn.ModuleList(
            operations.ConvTranspose2d(inside if depth == DEEPEST else 2 * inside, outside, 4, **settings)
            for depth, (outside, inside) in enumerate(pairwise([1, *widths]))
        )

    def forward(self, picture: Tensor) -> Tensor:
        x, beside = self.downs[0](picture), []
        for depth, down in enumerate(self.downs[1:], start=1):
            # What comes up takes this, too: of it only what is positive, which stays as it is.
            beside.append(leaky_relu(x, SLOPE, inplace=True))
            x = down(x)
            if depth < DEEPEST:
                x = instance_norm(x)
        for up in reversed(self.ups[1:]):
            x = torch.cat((beside.pop(), instance_norm(up(x.relu_()))), 1)
        return self.ups[0](x.relu_()).float().tanh()  # type: ignore[no-any-return]


def published_name(depth: int, part: str) -> str:
    """What the file calls the convolution down or up at a depth: the published modules lie in each other."""
    within = "model.model.1." + "model.3." * (depth - 1) if depth else "model."
    if part == "downs":
        return f"{within}model.{1 if depth else 0}"
    return f"{within}model.{3 if depth in (0, DEEPEST) else 5}"


def renamed(weights: Mapping[str, Tensor | tuple[int, ...]], to_published: bool) -> dict[str, Any]:
    """By the module's names what is there by the file's, or the other way round."""
    names = {
        f"{part}.{depth}.{kind}": f"{published_name(depth, part)}.{kind}"
        for depth in range(len(WIDTHS))
        for part in ("downs", "ups")
        for kind in ("weight", "bias")
    }
    if to_published:
        return {names[name]: value for name, value in weights.items()}
    return {name: weights[published] for name, published in names.items()}


def build_lineart_anime(
    weights: Mapping[str, Tensor],
    *,
    file: str = "LineartAnime",
    operations: Any = nn,
    dtype: torch.dtype = torch.float32,
) -> LineartAnime:
    """The network of netG.pth; its width is read from the shapes. Raises PreprocessorError."""
    weights = unmarked(weights)
    bias = weights.get(f"{published_name(0, 'downs')}.bias")
    width = WIDTH if bias is None or bias.ndim != 1 else bias.shape[0]
    check_weights(file, "LineartAnime", weights, renamed(shapes(LineartAnime(width, device=NOWHERE)), True))
    return filled(LineartAnime(width, operations, device=NOWHERE, dtype=dtype), renamed(weights, False), dtype)
