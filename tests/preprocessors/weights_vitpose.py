"""ViTPose and RT-DETR of random weights, as small as their classes allow, written as the hub's folders are."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn


def vitpose(experts: int) -> nn.Module:
    from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation

    backbone = VitPoseBackboneConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        mlp_ratio=2,
        num_experts=experts,
        part_features=4,
        out_indices=[1],
    )
    return VitPoseForPoseEstimation(VitPoseConfig(backbone_config=backbone, use_simple_decoder=True, num_labels=17))


def rt_detr() -> nn.Module:
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

    backbone = RTDetrResNetConfig(
        embedding_size=4,
        hidden_sizes=[4, 4, 8, 8],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    settings = RTDetrConfig(
        backbone_config=backbone,
        encoder_in_channels=[4, 8, 8],
        encoder_hidden_dim=16,
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        d_model=16,
        decoder_in_channels=[16, 16, 16],
        decoder_ffn_dim=16,
        decoder_attention_heads=2,
        decoder_layers=1,
        num_queries=6,
        id2label={0: "person", 1: "bicycle", 2: "car"},
        label2id={"person": 0, "bicycle": 1, "car": 2},
    )
    return RTDetrForObjectDetection(settings)


@cache
def network(make: Callable[[], nn.Module]) -> nn.Module:
    """With weights that let what it sees come through."""
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        module = make().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in module.parameters():
            if weights.ndim > 1:
                fan_in = max(1, weights[0].numel())
                weights.copy_(torch.randn(weights.shape, generator=generator) * fan_in**-0.5)
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Linear) and ("class_embed" in name or "score_head" in name):
                layer.bias.fill_(-1.0)
    return module


def written(make: Callable[[], nn.Module], folder: Path) -> None:
    """As the hub's folder of it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files(make).items():
        (folder / name).write_bytes(content)


@cache
def files(make: Callable[[], nn.Module]) -> dict[str, bytes]:
    with TemporaryDirectory() as name:
        network(make).save_pretrained(name)  # type: ignore[operator]
        return {path.name: path.read_bytes() for path in Path(name).iterdir()}


ONE, EXPERTS = partial(vitpose, 1), partial(vitpose, 6)
WRITTEN: dict[str, Callable[[Path], None]] = {
    "ViTPose-Base": partial(written, ONE),
    **{f"ViTPose-Plus-{size}": partial(written, EXPERTS) for size in ("Small", "Base", "Large", "Huge")},
    **{f"RT-DETR-R{depth}": partial(written, rt_detr) for depth in (18, 50, 101)},
}
"""By annotator: what writes its folder."""
