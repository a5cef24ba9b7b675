"""Segmentation by OneFormer."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .networks.network import Network
from .networks.sight import Sight
from .preprocessor import Preprocessor
from .segmentation import looks_like, network_choice, segmented

NETWORKS = ("oneformer_ade20k_swin_tiny", "oneformer_ade20k_swin_large", "oneformer_coco_swin_large")


def oneformer(
    image_bhwc: Tensor, *, networks: Mapping[str, Network], network: str = NETWORKS[0], resolution: int = 0
) -> Tensor:
    """Classes in ADE20K's or COCO's colours. (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter side at `resolution`
    (0: its own).
    """
    return segmented(image_bhwc, networks[network], network, resolution)


ONEFORMER = Preprocessor(
    id="OneFormer",
    name="OneFormer Segmentation",
    function=oneformer,
    parameters=(
        network_choice(
            NETWORKS,
            "ADE20K's 150 classes are those of the seg ControlNets; COCO's 133 tell things better apart. Large is finer and slower than tiny.",
        ),
    ),
    annotators=NETWORKS,
    chosen_by="network",
    output="classes in the colours of ADE20K or COCO",
    description="What every pixel shows, in the colours that the segmentation ControlNets were trained on.",
    aliases=(
        "OneFormer-ADE20K-SemSegPreprocessor",
        "OneFormer-COCO-SemSegPreprocessor",
        "seg_ofade20k",
        "seg_ofcoco",
        "segmentation",
        "oneformer ade20k segmentor",
        "semantic segmentation",
    ),
    looks_at=looks_like(Sight(shorter=640, longer=2560)),
)
