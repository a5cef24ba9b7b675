"""Line art of anime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .networks.lineart_anime import MULTIPLE
from .networks.network import Network
from .preprocessor import Preprocessor
from .resampling import area, cubic
from .sizing import Size
from .through import through


def stretched_size(size: Size, parameters: Mapping[str, Any] | None = None) -> Size:
    """How large the network sees a picture of this size: it halves both sides eight times."""
    return Size(-(-size.height // MULTIPLE) * MULTIPLE, -(-size.width // MULTIPLE) * MULTIPLE)


def lineart_anime(image_bhwc: Tensor, *, networks: Mapping[str, Network], resolution: int = 0) -> Tensor:
    """White lines on black. (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter side at `resolution` (0: its own).

    The network sees the picture stretched to sides of multiples of 256, cubic as the field does it; its lines are averaged back.
    """

    def compute(picture: Tensor) -> Tensor:
        size = Size(*picture.shape[2:])
        stretched = cubic(picture.movedim(1, -1), stretched_size(size)).clamp(0, 1).movedim(-1, 1)
        lines = 0.5 - 0.5 * networks["LineartAnime"](stretched * 2 - 1)
        return area(lines.movedim(1, -1), size).movedim(-1, 1)

    return through(image_bhwc, resolution, compute).repeat(1, 1, 1, 3)


LINEART_ANIME = Preprocessor(
    id="LineartAnime",
    name="Anime Lineart",
    function=lineart_anime,
    parameters=(),
    annotators=("LineartAnime",),
    looks_at=stretched_size,
    output="white lines on black",
    description="Line art of anime and illustrations by a network: for the anime lineart ControlNets.",
    aliases=("AnimeLineArtPreprocessor", "lineart_anime", "anime line art", "line art", "anime2sketch", "sketch"),
)
