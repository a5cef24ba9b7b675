"""A trained control as a file that others load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..checkpoints.diffusers_layout import FIXED, RES_BLOCK, cldm_names
from ..checkpoints.encoder import Down, EncoderHyperparameters, expected_shapes
from .errors import TrainingError
from .whole import write_whole

Layout = Literal["cldm", "diffusers"]
SUBJECT = "The trained control"
DIFFUSERS_FILE = "diffusion_pytorch_model.safetensors"


def export(
    path: Path,
    weights: Mapping[str, Tensor],
    net: EncoderHyperparameters,
    heads: Mapping[str, int],
    *,
    layout: Layout = "cldm",
    dtype: torch.dtype = torch.float16,
    about: Mapping[str, str] | None = None,
) -> Path:
    """Writes the weights of a trainable copy (names of cldm, as `Trained.average`); the file's path.

    `net` and `heads` as `encoder_of` and `heads_of` tell them of the UNet. `about` goes into the file's metadata (base, condition, steps,
    pooling, licence). "cldm": `path` is the file. "diffusers": `path` is a folder, with its config.json, as `from_pretrained` reads it.
    A file that is there is replaced once the new one is whole. Raises TrainingError for weights of another form or a disk that refuses.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if shapes != expected_shapes(net):
        raise TrainingError(
            "The control to be saved",
            found="is no copy of an encoder",
            expected="the weights of one were expected",
            remedy="train with form 'copy'; a lite control is for comparison only",
        )
    metadata = dict(about or {}) | {"format": "pt"} | {name: str(value) for name, value in heads.items()}
    names = {name: name for name in weights}
    file = path
    if layout == "diffusers":
        names, file = diffusers_names(net), path / DIFFUSERS_FILE
        config = diffusers_config(net, heads)
    held = {names[name]: _converted(name, tensor, dtype) for name, tensor in weights.items()}
    write_whole(file, lambda beside: save_file(held, beside, metadata=metadata), SUBJECT)
    if layout == "diffusers":
        text = json.dumps(config, indent=2) + "\n"
        write_whole(path / "config.json", lambda beside: beside.write_text(text, encoding="utf-8"), SUBJECT)
    return file


def _converted(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """By itself in memory, as safetensors wants it. Raises TrainingError where something is no number, or none in this dtype."""
    made = tensor.detach().to("cpu", dtype, copy=True, memory_format=torch.contiguous_format)
    if bool(torch.isfinite(made).all()):
        return made
    if bool(torch.isfinite(tensor).all()):
        largest = f"{float(tensor.detach().abs().max()):g} in its tensor '{name}'"
        raise TrainingError(
            "The control to be saved",
            found=f"holds {largest}",
            expected=f"at most {torch.finfo(dtype).max:g} was expected in {str(dtype).removeprefix('torch.')}",
            remedy="save it in bf16 or fp32",
        )
    raise TrainingError(
        "The control to be saved",
        found=f"holds NaN or infinity in its tensor '{name}'",
        expected="finite numbers were expected",
        remedy="train it anew with a lower rate, or continue from an earlier state",
    )


def diffusers_names(net: EncoderHyperparameters) -> dict[str, str]:
    """Name in cldm -> name in diffusers, for every tensor of such a network."""
    # SDXL's vector is an added embedding there, which stands before the older word in the table.
    modules = {ours: theirs for theirs, ours in reversed(FIXED.items())}
    for index in range(1, 7):
        modules[f"input_hint_block.{2 * index}"] = f"controlnet_cond_embedding.blocks.{index - 1}"
    modules["input_hint_block.14"] = "controlnet_cond_embedding.conv_out"
    level, resnet = 0, 0
    modules["zero_convs.0.0"] = "controlnet_down_blocks.0"
    for index, block in enumerate(net.blocks(), start=1):
        modules[f"zero_convs.{index}.0"] = f"controlnet_down_blocks.{index}"
        if isinstance(block, Down):
            modules[f"input_blocks.{index}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
            level, resnet = level + 1, 0
            continue
        for theirs, ours in RES_BLOCK.items():
            modules[f"input_blocks.{index}.0.{ours}"] = f"down_blocks.{level}.resnets.{resnet}.{theirs}"
        modules[f"input_blocks.{index}.1"] = f"down_blocks.{level}.attentions.{resnet}"
        resnet += 1
    renamed = {name: _renamed(name, modules) for name in expected_shapes(net)}
    assert cldm_names(renamed.values()) == {theirs: ours for ours, theirs in renamed.items()}
    return renamed


def diffusers_config(net: EncoderHyperparameters, heads: Mapping[str, int]) -> dict[str, Any]:
    """Arguments of diffusers' ControlNetModel. Raises TrainingError for an encoder that these cannot tell."""
    widths = [mult * net.model_channels for mult in net.channel_mult]
    depths, rest = [], list(net.transformer_depth)
    for count in net.num_res_blocks:
        own = {max(depth, 0) for depth in rest[:count]}
        rest = rest[count:]
        depths.append(own.pop() if len(own) == 1 else -1)
    per_level = [depth or 1 for depth in depths]
    if -1 in depths or len(set(net.num_res_blocks)) != 1 or net.transformer_depth_middle != per_level[-1]:
        raise TrainingError(
            "The control to be saved",
            found="has blocks that differ within a level",
            expected="diffusers' layout wants them alike",
            remedy="save it in the cldm layout",
        )
    config: dict[str, Any] = {
        "_class_name": "ControlNetModel",
        "in_channels": net.in_channels,
        "conditioning_channels": net.hint_channels,
        "block_out_channels": widths,
        "layers_per_block": net.num_res_blocks[0],
        "cross_attention_dim": net.context_dim,
        # There, the number of heads is called their dimension.
        "attention_head_dim": heads.get("num_heads") or [width // heads["num_head_channels"] for width in widths],
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
        "transformer_layers_per_block": per_level,
        "use_linear_projection": net.use_linear_in_transformer,
        "conditioning_embedding_out_channels": list(net.hint_widths),
    }
    if net.adm_in_channels is not None:
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": net.adm_in_channels,
        }
    return config


def _renamed(name: str, modules: Mapping[str, str]) -> str:
    module = name
    while module not in modules:
        module = module.rpartition(".")[0]
    return modules[module] + name[len(module) :]
