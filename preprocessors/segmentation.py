"""Every pixel in its class's colour, by networks that were trained on a data set with a palette."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from .looking import resampled, standardised
from .networks.network import Network, finite
from .networks.segmenter import Segmenter
from .networks.sight import Sight
from .pixels import check_picture
from .preprocessor import Parameter
from .sizing import Size, size_at

NUMBERS_AT_ONCE = 1 << 23
"""Scores at the hint's size that are in memory at once: 32 MB."""


def segmented(image_bhwc: Tensor, network: Network, name: str, resolution: int) -> Tensor:
    """The palette's colours, each frame alone. (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter side at `resolution`
    (0: its own). Raises PreprocessorError for anything but finite RGB pictures, and where the network gives no numbers.
    """
    check_picture(image_bhwc, "image")
    segmenter = cast(Segmenter, network.module)
    size = Size(*image_bhwc.shape[1:3])
    target, sight = size_at(size, resolution), segmenter.sight
    picture = resampled(image_bhwc.float().movedim(-1, 1), sight.size_of(size), "bilinear", antialias=True)
    found = network(standardised(picture, sight.statistics))
    colours = segmenter.palette.colours().to(image_bhwc.device)
    hints = torch.empty((image_bhwc.shape[0], *target, 3), device=image_bhwc.device)
    for frame, hint in enumerate(hints):
        scores = finite(segmenter.scores(found, frame, target), name, "scores")
        hint.copy_(colours[best(scores, target, segmenter.antialias).to(colours.device)])
    return hints


def best(scores_chw: Tensor, size: Size, antialias: bool = False) -> Tensor:
    """(classes, h, w) float32 -> (*size) int64: the class of the most at each pixel after bilinear resizing.

    Enlarged scores are never whole in memory: 150 classes at 2048 x 2048 pixels would be 2.5 GB for each frame.
    """
    classes, rows, columns = scores_chw.shape
    if size.width > columns:
        wide = scores_chw @ enlarging(columns, size.width).T.to(scores_chw.device)
    else:
        wide = resampled(scores_chw[None], Size(rows, size.width), "bilinear", antialias=antialias)[0]
    if size.height <= rows:
        return most(resampled(wide[None], size, "bilinear", antialias=antialias)[0])
    weights = enlarging(rows, size.height)
    labels = torch.empty(tuple(size), dtype=torch.int64, device=wide.device)
    step = max(1, NUMBERS_AT_ONCE // (classes * size.width))
    for first in range(0, size.height, step):
        band = weights[first : first + step]
        used = band.any(0).nonzero()
        above, below = int(used[0]), int(used[-1]) + 1
        labels[first : first + step] = most(band[:, above:below].to(wide.device) @ wide[:, above:below])
    return labels


def enlarging(before: int, after: int) -> Tensor:
    """(after, before) float32: PyTorch's bilinear resizing of one direction, corners not aligned, as a matrix."""
    places = ((torch.arange(after, dtype=torch.float64) + 0.5) * (before / after) - 0.5).clamp(0, before - 1)
    return (1 - (places.unsqueeze(1) - torch.arange(before)).abs()).clamp(min=0).float()


def most(scores_chw: Tensor) -> Tensor:
    # Twice as fast on a CPU as argmax.
    labels: Tensor = scores_chw.max(0).indices
    return labels


def network_choice(names: tuple[str, ...], tooltip: str) -> Parameter:
    return Parameter("network", names[0], tooltip, options=names)


def looks_like(sight: Sight) -> Any:
    """How large networks of a family see a picture; the files say it exactly."""

    def looks_at(size: Size, parameters: Mapping[str, Any]) -> Size:
        return sight.size_of(size)

    return looks_at
