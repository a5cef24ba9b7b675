"""Residuals and hint embeddings equal diffusers' ControlNetModel on the same weights, through files in both layouts."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("comfy")
diffusers = pytest.importorskip("diffusers")

from control_composer.checkpoints import load_checkpoint  # noqa: E402
from control_composer.checkpoints.diffusers_layout import cldm_names  # noqa: E402
from control_composer.checkpoints.encoder import NO_ATTENTION  # noqa: E402

TOLERANCE = 1e-4

SD1_LIKE = {
    "block_out_channels": (32, 64, 64, 64),
    "layers_per_block": 2,
    "cross_attention_dim": 48,
    # Eight heads in spite of its name.
    "attention_head_dim": 8,
    "conditioning_channels": 3,
}
XL = {
    "block_out_channels": (32, 64, 128),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "transformer_layers_per_block": (1, 2, 3),
    # Numbers of heads too: 16 channels each.
    "attention_head_dim": (2, 4, 8),
    "cross_attention_dim": 96,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 40 + 6 * 8,
}
CONFIGS = {
    "SD1": (SD1_LIKE, {"num_heads": "8"}),
    "SD2": (
        SD1_LIKE | {"use_linear_projection": True, "attention_head_dim": (2, 4, 4, 4)},
        {"num_head_channels": "16"},
    ),
    "SDXL": (XL, {"num_head_channels": "16"}),
    "SDXL mid": (XL | {"transformer_layers_per_block": (0, 0, 1)}, {"num_head_channels": "16"}),
    "SDXL small": (XL | {"down_block_types": ("DownBlock2D",) * 3, "transformer_layers_per_block": (0, 0, 0)}, {}),
    "six hint channels, one layer": (
        SD1_LIKE | {"conditioning_channels": 6, "layers_per_block": 1},
        {"num_heads": "8"},
    ),
}


def reference(config: dict[str, Any]) -> Any:
    """A ControlNetModel with every weight random, its zero convolutions too."""
    generator = torch.Generator().manual_seed(1)
    net = diffusers.ControlNetModel(**config)
    with torch.no_grad():
        for parameter in net.parameters():
            scale = 0.1 if parameter.ndim == 1 else 1 / math.sqrt(math.prod(parameter.shape[1:]))
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale + (parameter.ndim == 1) * 1.0)
    return net.eval()


def inputs(net: Any) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    config = net.config
    values = {
        "x": torch.randn(2, 4, 8, 16, generator=generator),
        "hint": torch.rand(2, config.conditioning_channels, 64, 128, generator=generator),
        "timesteps": torch.tensor([13.0, 977.0]),
        "context": torch.randn(2, 7, config.cross_attention_dim, generator=generator),
    }
    if config.addition_embed_type:
        values["text_embeds"] = torch.randn(2, 40, generator=generator)
        values["time_ids"] = torch.tensor([[128.0, 192, 0, 8, 128, 192], [64, 96, 4, 0, 64, 96]])
    return values


def their_residuals(net: Any, values: dict[str, Tensor]) -> list[Tensor]:
    added = {key: values[key] for key in ("text_embeds", "time_ids") if key in values} or None
    down, middle = net(
        values["x"], values["timesteps"], values["context"], values["hint"], added_cond_kwargs=added, return_dict=False
    )
    return [*down, middle]


def pooled_vector(net: Any, values: dict[str, Tensor]) -> Tensor | None:
    if "time_ids" not in values:
        return None
    sizes = net.add_time_proj(values["time_ids"].flatten()).reshape(2, -1)
    return torch.cat([values["text_embeds"], sizes], dim=1)


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def as_cldm(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    names = cldm_names(tensors)
    return {f"control_model.{names[name]}": tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("layout", ["diffusers", "cldm"])
@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_residuals_and_hint_embedding(name: str, layout: str, save: Callable[..., Path]) -> None:
    config, metadata = CONFIGS[name]
    net = reference(config)
    tensors = dict(net.state_dict())
    path = save(as_cldm(tensors) if layout == "cldm" else tensors, metadata=metadata)

    loaded = load_checkpoint(path)
    assert loaded.match.family.name == f"a ControlNet ({layout} layout)"
    assert loaded.match.parameter_count == sum(parameter.numel() for parameter in net.parameters())
    ours, values = loaded.built.module, inputs(net)

    embedding = ours.input_hint_block(values["hint"], None, None)
    assert relative_error(embedding, net.controlnet_cond_embedding(values["hint"])) < TOLERANCE

    result = ours(values["x"], values["hint"], values["timesteps"], values["context"], y=pooled_vector(net, values))
    theirs = their_residuals(net, values)
    residuals = [*result["output"], *result["middle"]]
    assert len(residuals) == len(theirs)
    errors = [relative_error(mine, other) for mine, other in zip(residuals, theirs, strict=True)]
    assert max(errors) < TOLERANCE, errors


@torch.no_grad()
def test_another_number_of_heads_gives_other_residuals(save: Callable[..., Path]) -> None:
    """What would happen, without a word, if the number were guessed: the reason to refuse."""
    net = reference(SD1_LIKE)
    values = inputs(net)
    ours = load_checkpoint(save(dict(net.state_dict()), metadata={"num_head_channels": "16"})).built.module
    result = ours(values["x"], values["hint"], values["timesteps"], values["context"])
    assert relative_error(result["middle"][0], their_residuals(net, values)[-1]) > 100 * TOLERANCE


def test_bare_projections_are_read_as_depth_zero(save: Callable[..., Path]) -> None:
    config, metadata = CONFIGS["SDXL mid"]
    match = load_checkpoint(save(dict(reference(config).state_dict()), metadata=metadata)).match
    assert match.hyperparameters.transformer_depth == (NO_ATTENTION, NO_ATTENTION, 0, 0, 1, 1)
