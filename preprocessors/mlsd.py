"""Straight lines by M-LSD."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d, pad

from .networks.network import Network
from .pixels import check_picture
from .preprocessor import Parameter, Preprocessor
from .sizing import Size, resized, size_at
from .through import padded_size

NETWORK = "MLSD-large"
LOOKS = 512
"""What it was trained at. Of larger pictures it finds only short pieces of long lines, and no more of them."""
LINES = 200
"""At most so many of a picture, the likeliest."""
SEES = 2
"""Pixels of the picture for one of the network's maps."""
FARTHEST = 1 << 20
"""Ends beyond this many pixels would be no whole numbers that OpenCV takes."""


def lines(maps: Tensor, score: float, distance: float) -> list[np.ndarray]:
    """Of each picture the lines that are likelier than `score` and longer than `distance` (in pixels of the maps), by their ends.

    maps: (B, 5, h, w) float32 as the network makes them. Gives for each picture (N, 4) float32: x, y, x, y in pixels of the maps.
    """
    likely = maps[:, 0].sigmoid()
    # The middle of a line is where no neighbour is likelier.
    peaks = torch.where(max_pool2d(likely, 3, stride=1, padding=1) == likely, likely, 0).flatten(1)
    scores, places = peaks.topk(min(LINES, peaks.shape[1]))
    middle = torch.stack((places % maps.shape[3], places // maps.shape[3]), -1).repeat(1, 1, 2)
    away = maps[:, 1:].flatten(2).gather(2, places[:, None].expand(-1, 4, -1)).movedim(1, 2)
    long = torch.linalg.vector_norm(away[..., :2] - away[..., 2:], dim=-1) > distance
    # One transfer of a small tensor, whatever the batch.
    found = torch.cat((middle + away, ((scores > score) & long)[..., None]), -1).cpu().numpy()
    return [frame[frame[:, 4] > 0, :4] for frame in found]


def drawn(ends: np.ndarray, size: Size) -> np.ndarray:
    """Lines (N, 4), x, y, x, y in pixels, one pixel wide, white (255) on black: (height, width) uint8."""
    import cv2  # here, because importing the pack must stay fast

    canvas = np.zeros(size, np.uint8)
    # Cut off towards zero, as the field does.
    points = np.clip(ends, -FARTHEST, FARTHEST).astype(np.int32).reshape(-1, 2, 2)
    cv2.polylines(canvas, list(points), False, 255, 1)
    return canvas


def looked_at(size: Size, parameters: Mapping[str, Any]) -> Size:
    """How large the network sees a picture whose hint has this size."""
    return padded_size(size, shorter_side(size, int(parameters["inference_size"])))


def shorter_side(size: Size, inference_size: int) -> int:
    """At which the network looks at a picture whose hint has this size: never larger."""
    return min(inference_size or min(size), *size)


def mlsd(
    image_bhwc: Tensor,
    *,
    networks: Mapping[str, Network],
    score: float = 0.1,
    distance: float = 0.1,
    inference_size: int = LOOKS,
    network: str = NETWORK,
    resolution: int = 0,
) -> Tensor:
    """White straight lines, one pixel wide, on black. (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 of 0 and 1, the shorter side at
    `resolution` (0: its own).

    The network looks at the picture with its shorter side at `inference_size` (0: the hint's size) or, if it is smaller, as it is; the lines are
    drawn at the hint's size. Lines that are less likely than `score` or, in the network's maps, shorter than `distance` are left out.
    """
    check_picture(image_bhwc, "image")
    size = size_at(Size(*image_bhwc.shape[1:3]), resolution)
    picture = resized(image_bhwc.float(), shorter_side(size, inference_size)).clamp(0, 1).movedim(-1, 1)
    seen = Size(*picture.shape[2:])
    padded = padded_size(seen, 0)
    maps = networks[network](
        pad(picture, (0, padded.width - seen.width, 0, padded.height - seen.height), mode="replicate")
    )
    # Lines from or to the padding are cut off where the field cuts them off.
    down, across = size.height / seen.height, size.width / seen.width
    canvas = Size(ceil(padded.height * down), ceil(padded.width * across))
    scale = SEES * np.array([across, down, across, down], np.float32)
    hints = np.stack(
        [drawn(ends * scale, canvas)[: size.height, : size.width] for ends in lines(maps, score, distance)]
    )
    return (torch.from_numpy(hints).to(image_bhwc.device) / 255).unsqueeze(-1).repeat(1, 1, 1, 3)


MLSD = Preprocessor(
    id="MLSD",
    name="M-LSD Lines",
    function=mlsd,
    parameters=(
        Parameter(
            "score",
            default=0.1,
            minimum=0.01,
            maximum=2.0,
            step=0.01,
            tooltip="Lines that are less likely than this are left out. Less: more lines.",
        ),
        Parameter(
            "distance",
            default=0.1,
            minimum=0.01,
            maximum=20.0,
            step=0.01,
            tooltip="Lines shorter than twice this many pixels, at the inference size, are left out.",
        ),
        Parameter(
            "inference_size",
            default=LOOKS,
            minimum=0,
            maximum=4096,
            step=64,
            tooltip="Pixels of the shorter side at which the network looks at the picture; 0: the hint's size. It was trained at 512; of larger pictures it "
            "finds only pieces of the long lines. The lines are drawn at the hint's size.",
        ),
        Parameter(
            "network",
            default=NETWORK,
            options=(NETWORK, "MLSD-tiny"),
            tooltip="MLSD-large is the usual one. MLSD-tiny is faster and finds less.",
        ),
    ),
    annotators=(NETWORK, "MLSD-tiny"),
    chosen_by="network",
    looks_at=looked_at,
    output="white straight lines, one pixel wide, on black",
    description="Straight lines, as of buildings and rooms, by a small network (6 MB): for the M-LSD ControlNets.",
    aliases=("M-LSDPreprocessor", "mlsd", "m-lsd", "straight lines", "line segments", "hough", "wireframe"),
)
