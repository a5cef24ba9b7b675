"""Line art of photographs."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .networks.network import Network
from .preprocessor import Parameter, Preprocessor
from .through import through

NETWORKS = ("Lineart", "Lineart-coarse")


def lineart(
    image_bhwc: Tensor, *, networks: Mapping[str, Network], network: str = NETWORKS[0], resolution: int = 0
) -> Tensor:
    """White lines on black. (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter side at `resolution` (0: its own)."""
    return through(image_bhwc, resolution, lambda picture: 1 - networks[network](picture)).repeat(1, 1, 1, 3)


LINEART = Preprocessor(
    id="Lineart",
    name="Lineart",
    function=lineart,
    parameters=(
        Parameter(
            "network",
            default=NETWORKS[0],
            options=NETWORKS,
            tooltip="Lineart draws fine lines, Lineart-coarse fewer and rougher ones.",
        ),
    ),
    annotators=NETWORKS,
    chosen_by="network",
    output="white lines on black",
    description="Line art of photographs and paintings by a network: for the lineart ControlNets.",
    aliases=(
        "LineArtPreprocessor",
        "lineart_realistic",
        "lineart_coarse",
        "realistic lineart",
        "line art",
        "sketch",
        "informative drawings",
    ),
)
