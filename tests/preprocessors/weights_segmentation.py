"""Segmentation networks of random weights, as narrow as their classes can be, as folders like the published ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from control_composer.preprocessors.mask2former import NETWORKS as MASK2FORMERS
from control_composer.preprocessors.oneformer import NETWORKS as ONEFORMERS
from control_composer.preprocessors.palettes import ADE20K, COCO
from control_composer.preprocessors.sam import NETWORKS as SAMS
from control_composer.preprocessors.segformer import NETWORKS as SEGFORMERS
from control_composer.preprocessors.upernet import NETWORKS as UPERNETS

Processor = dict[str, Any]

SQUARE: Processor = {"size": {"height": 64, "width": 64}}
CORNER: Processor = {"size": {"longest_edge": 64}, "pad_size": {"height": 64, "width": 64}}
ASPECT: Processor = {"size": {"shortest_edge": 48, "longest_edge": 128}}


def spread(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights that let what goes through keep its spread, so that pictures matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weights in module.named_parameters():
            numbers = torch.randn(weights.shape, generator=generator)
            if weights.ndim > 1:
                weights.copy_(1.4 * numbers * weights[0].numel() ** -0.5)
            else:
                weights.copy_(0.2 * numbers + (1 if name.endswith("weight") else 0))
    return module.eval()


def labels(names: tuple[Any, ...]) -> dict[str, Any]:
    id2label = {number: name.split(", ")[0] for number, (_, name) in enumerate(names)}
    return {"id2label": id2label, "label2id": {}}


def swin(**changes: Any) -> Any:
    from transformers import SwinConfig

    return SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        drop_path_rate=0.0,
        **changes,
    )


@cache
def segformer() -> nn.Module:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    return spread(
        SegformerForSemanticSegmentation(
            SegformerConfig(
                depths=[1, 1, 1, 1],
                hidden_sizes=[8, 8, 16, 16],
                num_attention_heads=[1, 1, 2, 2],
                decoder_hidden_size=16,
                **labels(ADE20K.classes),
            )
        )
    )


@cache
def upernet(backbone: str) -> nn.Module:
    from transformers import ConvNextConfig, UperNetConfig, UperNetForSemanticSegmentation

    stages = ["stage1", "stage2", "stage3", "stage4"]
    inner = (
        swin()
        if backbone == "swin"
        else ConvNextConfig(depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 16], out_features=stages)
    )
    config = UperNetConfig(
        backbone_config=inner,
        hidden_size=16,
        auxiliary_in_channels=32 if backbone == "swin" else 16,
        auxiliary_channels=8,
        **labels(ADE20K.classes),
    )
    return spread(UperNetForSemanticSegmentation(config))


QUERIES: dict[str, Any] = {
    "hidden_dim": 64,
    "encoder_feedforward_dim": 16,
    "dim_feedforward": 16,
    "encoder_layers": 1,
    "num_attention_heads": 2,
    "num_queries": 10,
}


@cache
def mask2former(data: str) -> nn.Module:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

    names = ADE20K.classes if data == "ade-semantic" else COCO.classes
    config = Mask2FormerConfig(
        backbone_config=swin(), feature_size=64, mask_feature_size=64, decoder_layers=2, **QUERIES, **labels(names)
    )
    return sharpened(
        spread(Mask2FormerForUniversalSegmentation(config)), queries=30, class_predictor=4, mask_embedder=6
    )


@cache
def oneformer(data: str) -> nn.Module:
    from transformers import OneFormerConfig, OneFormerForUniversalSegmentation

    names = ADE20K.classes if data == "ade20k" else COCO.classes
    config = OneFormerConfig(
        backbone_config=swin(),
        conv_dim=64,
        mask_dim=64,
        decoder_layers=3,
        query_dec_layers=1,
        **QUERIES,
        **labels(names),
    )
    module = OneFormerForUniversalSegmentation(config)
    return sharpened(spread(module, 2), queries=20, class_embed=12, mask_embed=6)


@cache
def sam() -> nn.Module:
    from transformers import SamConfig, SamModel

    image = {"image_size": 64, "patch_size": 8}
    config = SamConfig(
        vision_config={
            "hidden_size": 16,
            "output_channels": 16,
            "num_pos_feats": 8,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "mlp_dim": 16,
            "window_size": 4,
            "global_attn_indexes": [1],
            **image,
        },
        prompt_encoder_config={"hidden_size": 16, "mask_input_channels": 4, "image_embedding_size": 8, **image},
        mask_decoder_config={
            "hidden_size": 16,
            "mlp_dim": 16,
            "num_attention_heads": 2,
            "num_hidden_layers": 2,
            "iou_head_hidden_dim": 16,
        },
    )
    module = spread(SamModel(config))
    with torch.no_grad():
        # Masks that follow their point and have sharp edges, many of them found good.
        for name, weights in module.mask_decoder.transformer.named_parameters():
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                weights.mul_(3)
            elif name.endswith(("v_proj.weight", "out_proj.weight")):
                weights.mul_(2)
        for head in module.mask_decoder.output_hypernetworks_mlps:
            head.proj_out.weight.mul_(1000)
        module.mask_decoder.iou_prediction_head.proj_out.bias.fill_(1)
    return module


def sharpened(module: nn.Module, **factors: float) -> nn.Module:
    """With some weights, by a part of their names, larger: classes and masks that differ."""
    with torch.no_grad():
        for name, weights in module.named_parameters():
            for part, factor in factors.items():
                if part in name:
                    weights.mul_(factor)
    return module


def write(make: Callable[[], nn.Module], processor: Processor, folder: Path) -> None:
    make().save_pretrained(folder)  # type: ignore[operator]
    (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")


WRITTEN: dict[str, Callable[[Path], None]] = (
    {name: partial(write, segformer, SQUARE) for name in SEGFORMERS}
    | {name: partial(write, partial(upernet, name.split("-")[1]), SQUARE) for name in UPERNETS}
    | {name: partial(write, partial(mask2former, name.split("-", 3)[3]), SQUARE) for name in MASK2FORMERS}
    | {name: partial(write, partial(oneformer, name.split("_")[1]), ASPECT) for name in ONEFORMERS}
    | {name: partial(write, sam, CORNER) for name in SAMS}
)
