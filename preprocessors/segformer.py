"""Segmentation by SegFormer."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .networks.network import Network
from .networks.sight import Sight
from .preprocessor import Preprocessor
from .segmentation import looks_like, network_choice, segmented
from .sizing import Size

NETWORKS = (
    "segformer-b0-finetuned-ade-512-512",
    "segformer-b1-finetuned-ade-512-512",
    "segformer-b2-finetuned-ade-512-512",
    "segformer-b3-finetuned-ade-512-512",
    "segformer-b4-finetuned-ade-512-512",
    "segformer-b5-finetuned-ade-640-640",
)


def segformer(
    image_bhwc: Tensor, *, networks: Mapping[str, Network], network: str = NETWORKS[0], resolution: int = 0
) -> Tensor:
    """Classes in ADE20K's colours. (B, H, W, 3) float 0..1 -> (B, H', W', 3) float32 in 0..1, the shorter side at `resolution` (0: its own)."""
    return segmented(image_bhwc, networks[network], network, resolution)


SEGFORMER = Preprocessor(
    id="SegFormer",
    name="SegFormer Segmentation",
    function=segformer,
    parameters=(
        network_choice(NETWORKS, "From small and fast (b0) to fine and slow (b5); all know ADE20K's 150 classes."),
    ),
    annotators=NETWORKS,
    chosen_by="network",
    output="classes in the colours of ADE20K",
    description="What every pixel shows, in the colours that the segmentation ControlNets were trained on: small and fast.",
    aliases=("segmentation", "semantic segmentation", "ade20k"),
    looks_at=looks_like(Sight(square=Size(640, 640))),
)
