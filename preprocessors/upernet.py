"""Segmentation by UperNet."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .networks.network import Network
from .networks.sight import Sight
from .preprocessor import Preprocessor
from .segmentation import looks_like, network_choice, segmented
from .sizing import Size

NETWORKS = tuple(
    f"upernet-{backbone}"
    for backbone in (
        "convnext-small",
        "convnext-tiny",
        "convnext-base",
        "convnext-large",
        "convnext-xlarge",
        "swin-tiny",
        "swin-small",
        "swin-base",
        "swin-large",
    )
)


def upernet(
    image_bhwc: Tensor, *, networks: Mapping[str, Network], network: str = NETWORKS[0], resolution: int = 0
) -> Tensor:
    """Classes in ADE20K's colours. (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter side at `resolution` (0: its own)."""
    return segmented(image_bhwc, networks[network], network, resolution)


UPERNET = Preprocessor(
    id="UperNet",
    name="UperNet Segmentation",
    function=upernet,
    parameters=(network_choice(NETWORKS, "Larger ones are finer and slower; all know ADE20K's 150 classes."),),
    annotators=NETWORKS,
    chosen_by="network",
    output="classes in the colours of ADE20K",
    description="What every pixel shows, in the colours that the segmentation ControlNets were trained on.",
    aliases=("UniFormer-SemSegPreprocessor", "SemSegPreprocessor", "seg_ufade20k", "segmentation", "ade20k"),
    looks_at=looks_like(Sight(square=Size(640, 640))),
)
