"""Depth networks of random weights, as small as their classes allow, written as the hub's folders are."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from control_composer.preprocessors.annotators.depth import DEPTHS

DINO = {"model_type": "dinov2", "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 4, "mlp_ratio": 2}
NECK = {"neck_hidden_sizes": [4, 4, 8, 8], "fusion_hidden_size": 8}
BEIT = {
    "model_type": "beit",
    "image_size": 384,
    "num_hidden_layers": 4,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "use_relative_position_bias": True,
    "reshape_hidden_states": False,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
NYU = {"name": "nyu", "n_bins": 8, "min_depth": 1e-3, "max_depth": 10.0}
KITTI = {"name": "kitti", "n_bins": 8, "min_depth": 1e-3, "max_depth": 80.0}


def depth_anything(metric: bool) -> nn.Module:
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation

    backbone = DINO | {"image_size": 518, "patch_size": 14, "out_indices": [1, 2, 3, 4]}
    settings = DepthAnythingConfig(
        backbone_config=backbone | {"reshape_hidden_states": False, "apply_layernorm": True},
        patch_size=14,
        reassemble_hidden_size=16,
        head_hidden_size=4,
        depth_estimation_type="metric" if metric else "relative",
        max_depth=20 if metric else 1,
        **NECK,
    )
    return DepthAnythingForDepthEstimation(settings)


def dpt(hybrid: bool) -> nn.Module:
    from transformers import DPTConfig, DPTForDepthEstimation

    shape = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 4, "intermediate_size": 32}
    shape |= {"image_size": 64, "backbone_out_indices": [0, 1, 2, 3]} | NECK
    if hybrid:
        bit = {"embedding_size": 8, "hidden_sizes": [8, 16, 16], "depths": [1, 1, 1], "num_groups": 4}
        bit |= {"global_padding": "same", "layer_type": "bottleneck", "embedding_dynamic_padding": True}
        bit |= {"out_features": ["stage1", "stage2", "stage3"]}
        shape |= {"is_hybrid": True, "backbone_config": bit, "backbone_featmap_shape": [1, 16, 4, 4]}
        shape |= {"neck_hidden_sizes": [8, 16, 8, 8], "neck_ignore_stages": [0, 1]}
    return DPTForDepthEstimation(DPTConfig(**shape))


def zoe(heads: list[dict[str, Any]], centers: str) -> nn.Module:
    from transformers import ZoeDepthConfig, ZoeDepthForDepthEstimation

    several = {
        # Both are written into the class.
        "num_patch_transformer_layers": 4,
        "patch_transformer_hidden_size": 128,
        "patch_transformer_intermediate_size": 16,
        "patch_transformer_num_attention_heads": 2,
    }
    settings = ZoeDepthConfig(
        backbone_config=BEIT,
        bottleneck_features=8,
        num_relative_features=4,
        bin_embedding_dim=8,
        attractor_alpha=10,
        num_attractors=[4, 4, 2, 1],
        bin_configurations=heads,
        bin_centers_type=centers,
        **NECK,
        **(several if len(heads) > 1 else {}),
    )
    return ZoeDepthForDepthEstimation(settings)


def depth_pro() -> nn.Module:
    from transformers import DepthProConfig, DepthProForDepthEstimation

    part = DINO | {"patch_size": 8, "image_size": 32}
    settings = DepthProConfig(
        patch_size=32,
        fusion_hidden_size=8,
        intermediate_hook_ids=[3, 1],
        intermediate_feature_dims=[8, 8],
        scaled_images_feature_dims=[16, 16, 8],
        merge_padding_value=1,
        use_fov_model=True,
        image_model_config=part,
        patch_model_config=part,
        fov_model_config=part,
    )
    return DepthProForDepthEstimation(settings)


LAST = {"head.conv3": 1.0, "head.head.4": 2.0, "head.layers.4": 0.5, "fov_model.head.layers.4": 50.0}
"""By the layer that a network ends in: its bias, in the middle of what it is to give."""


@cache
def files(make: Callable[[], nn.Module]) -> dict[str, bytes]:
    """By name: the files of a network, with weights that let what it sees come through."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = make()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in network.parameters():
            if weights.ndim > 1:
                fan_in = max(1, weights[0].numel())
                weights.copy_(torch.randn(weights.shape, generator=generator) * fan_in**-0.5)
        for name, layer in network.named_modules():
            if name in LAST:
                layer.weight *= 0.3
                layer.bias.fill_(LAST[name])
    with TemporaryDirectory() as name:
        folder = Path(name)
        network.save_pretrained(folder)
        if network.config.model_type == "dpt" and network.config.is_hybrid:
            (folder / "model.safetensors").unlink()
            torch.save(network.state_dict(), folder / "pytorch_model.bin")
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def written(make: Callable[[], nn.Module], folder: Path) -> None:
    """As the hub's folder of it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files(make).items():
        (folder / name).write_bytes(content)


RELATIVE, METRIC = partial(depth_anything, False), partial(depth_anything, True)
LARGE, HYBRID = partial(dpt, False), partial(dpt, True)
ROOMS, STREETS, BOTH = (
    partial(zoe, [NYU], "softplus"),
    partial(zoe, [KITTI], "normed"),
    partial(zoe, [NYU, KITTI], "softplus"),
)


def kind(identifier: str) -> Callable[[], nn.Module]:
    if identifier.startswith("Depth-Anything"):
        return METRIC if "Metric" in identifier else RELATIVE
    others = {"DPT-Large": LARGE, "DPT-Hybrid-MiDaS": HYBRID, "DepthPro": depth_pro}
    others |= {"ZoeDepth-NYU": ROOMS, "ZoeDepth-KITTI": STREETS, "ZoeDepth-NYU-KITTI": BOTH}
    return others[identifier]


WRITTEN: dict[str, Callable[[Path], None]] = {one.id: partial(written, kind(one.id)) for one in DEPTHS}
