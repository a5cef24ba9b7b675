"""Line art of manga and of other drawings with patterns."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .networks.network import Network
from .preprocessor import Preprocessor
from .through import through

GRAY = (0.299, 0.587, 0.114)
"""What red, green and blue are worth in OpenCV's grey."""


def manga_line(image_bhwc: Tensor, *, networks: Mapping[str, Network], resolution: int = 0) -> Tensor:
    """White lines on black. (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter side at `resolution` (0: its own)."""

    def compute(picture: Tensor) -> Tensor:
        gray = sum(255 * weight * channel for weight, channel in zip(GRAY, picture.split(1, 1), strict=True))
        paper: Tensor = networks["MangaLine"](gray)
        return 1 - (paper / 255).clamp(0, 1)

    return through(image_bhwc, resolution, compute).repeat(1, 1, 1, 3)


MANGA_LINE = Preprocessor(
    id="MangaLine",
    name="Manga Line",
    function=manga_line,
    parameters=(),
    annotators=("MangaLine",),
    output="white lines on black",
    description="The lines of manga and cartoons without screentone and other patterns, by a network: for the anime lineart ControlNets.",
    aliases=(
        "Manga2Anime_LineArt_Preprocessor",
        "lineart_anime_denoise",
        "line art",
        "manga",
        "manga lineart",
        "screentone",
    ),
)
