"""Segmentation by Mask2Former."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .networks.network import Network
from .networks.sight import Sight
from .preprocessor import Preprocessor
from .segmentation import looks_like, network_choice, segmented

NETWORKS = tuple(
    f"mask2former-swin-{width}-{data}"
    for data in ("ade-semantic", "coco-panoptic")
    for width in ("tiny", "small", "base", "large")
)


def mask2former(
    image_bhwc: Tensor, *, networks: Mapping[str, Network], network: str = NETWORKS[0], resolution: int = 0
) -> Tensor:
    """Classes in ADE20K's or COCO's colours. (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter side at `resolution`
    (0: its own).
    """
    return segmented(image_bhwc, networks[network], network, resolution)


MASK2FORMER = Preprocessor(
    id="Mask2Former",
    name="Mask2Former Segmentation",
    function=mask2former,
    parameters=(
        network_choice(
            NETWORKS,
            "ADE20K's 150 classes (ade) are those of the seg ControlNets; COCO's 133 tell things better apart. Larger ones are finer and slower.",
        ),
    ),
    annotators=NETWORKS,
    chosen_by="network",
    output="classes in the colours of ADE20K or COCO",
    description="What every pixel shows, in the colours that the segmentation ControlNets were trained on.",
    aliases=("segmentation", "semantic segmentation", "ade20k"),
    looks_at=looks_like(Sight(shorter=640, longer=2560, divisor=32)),
)
