"""How other programs name the modules of a ControlNet-XS, written out from their classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

RES = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def model_modules(levels: int) -> dict[str, str]:
    """Module of the adapter -> of diffusers' ControlNetXSModel (0.25 to 0.27), which held a UNet2DConditionModel as `control_model`."""
    blocks = 3 * levels - 1  # of the encoder, without its first convolution
    found = {
        "conv_in": "control_model.conv_in",
        "time_embedding": "control_model.time_embedding",
        "mid_block.midblock": "control_model.mid_block",
        "control_to_base_for_conv_in": "down_zero_convs_out.0",
        "mid_block.base_to_ctrl": f"down_zero_convs_in.{blocks}",
        "mid_block.ctrl_to_base": "middle_block_out",
    }
    for level in range(levels):
        found[f"down_blocks.{level}"] = f"control_model.down_blocks.{level}"
        found[f"down_blocks.{level}.downsamplers"] = f"control_model.down_blocks.{level}.downsamplers.0"
    return found | connections(blocks, "down_zero_convs_{}.{}", "up_zero_convs_{}.{}")


def original_modules(levels: int) -> dict[str, str]:
    """Module of the adapter -> of vislearn/ControlNet-XS."""
    blocks = 3 * levels - 1
    found = {
        "conv_in": "control_model.input_blocks.0.0",
        "time_embedding.linear_1": "control_model.time_embed.0",
        "time_embedding.linear_2": "control_model.time_embed.2",
        "mid_block.midblock.attentions.0": "control_model.middle_block.1",
        "control_to_base_for_conv_in": "enc_zero_convs_out.0.0",
        "mid_block.base_to_ctrl": f"enc_zero_convs_in.{blocks}.0",
        "mid_block.ctrl_to_base": "middle_block_out.0",
        "controlnet_cond_embedding.conv_in": "input_hint_block.0",
        **{f"controlnet_cond_embedding.blocks.{n}": f"input_hint_block.{2 * n + 2}" for n in range(6)},
        "controlnet_cond_embedding.conv_out": "input_hint_block.14",
    }
    res_blocks = {f"mid_block.midblock.resnets.{n}": f"control_model.middle_block.{2 * n}" for n in range(2)}
    for level in range(levels):
        first = f"control_model.input_blocks.{3 * level + 1}"
        second = f"control_model.input_blocks.{3 * level + 2}"
        for number, block in enumerate((first, second)):
            res_blocks[f"down_blocks.{level}.resnets.{number}"] = f"{block}.0"
            found[f"down_blocks.{level}.attentions.{number}"] = f"{block}.1"
        found[f"down_blocks.{level}.downsamplers.conv"] = f"control_model.input_blocks.{3 * level + 3}.0.op"
    for ours, theirs in res_blocks.items():
        found |= {f"{ours}.{part}": f"{theirs}.{name}" for part, name in RES.items()}
    return found | connections(blocks, "enc_zero_convs_{}.{}.0", "dec_zero_convs_{}.{}.0")


def connections(blocks: int, encoder: str, decoder: str) -> dict[str, str]:
    found = {}
    for n in range(blocks):
        found[f"down_blocks.{n // 3}.ctrl_to_base.{n % 3}"] = encoder.format("out", n + 1)
        found[f"down_blocks.{n // 3}.base_to_ctrl.{n % 3}"] = encoder.format("in", n)
    return found | {
        f"up_connections.{n // 3}.ctrl_to_base.{n % 3}": decoder.format("out", n) for n in range(blocks + 1)
    }


def named(tensors: Mapping[str, T], modules: Mapping[str, str]) -> dict[str, T]:
    """The same tensors as another program names them: the longest module that is listed decides."""

    def name_of(name: str) -> str:
        module = name
        while module not in modules:
            module = module.rpartition(".")[0]
            if not module:
                return name
        return modules[module] + name[len(module) :]

    return {name_of(name): tensor for name, tensor in tensors.items()}
