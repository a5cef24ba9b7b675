"""Diffusers' names of a ControlNet in cldm names (diffusers, scripts/convert_original_stable_diffusion_to_diffusers.py, reversed)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

RES_BLOCK = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}

FIXED = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "class_embedding.linear_1": "label_emb.0.0",
    "class_embedding.linear_2": "label_emb.0.2",
    "controlnet_mid_block": "middle_block_out.0",
    "controlnet_cond_embedding.conv_in": "input_hint_block.0",
    "mid_block.attentions.0": "middle_block.1",
    **{f"mid_block.resnets.0.{theirs}": f"middle_block.0.{ours}" for theirs, ours in RES_BLOCK.items()},
    **{f"mid_block.resnets.1.{theirs}": f"middle_block.2.{ours}" for theirs, ours in RES_BLOCK.items()},
}


def cldm_names(names: Iterable[str]) -> dict[str, str]:
    """Diffusers name -> cldm name, for every name; one without a counterpart stays as it is."""
    names = list(names)
    modules = dict(_modules(set(names)))
    return {name: _renamed(name, modules) for name in names}


def _renamed(name: str, modules: dict[str, str]) -> str:
    # The longest known module that the name lies in decides.
    module = name
    while module:
        if module in modules:
            return modules[module] + name[len(module) :]
        module = module.rpartition(".")[0]
    return name


def _modules(names: set[str]) -> Iterator[tuple[str, str]]:
    yield from FIXED.items()

    blocks = 0
    while f"controlnet_cond_embedding.blocks.{blocks}.weight" in names:
        yield f"controlnet_cond_embedding.blocks.{blocks}", f"input_hint_block.{2 * (blocks + 1)}"
        blocks += 1
    yield "controlnet_cond_embedding.conv_out", f"input_hint_block.{2 * (blocks + 1)}"

    index, level = 1, 0
    while any(f"down_blocks.{level}.{part}.0.{first}" in names for part, first in _FIRST):
        resnet = 0
        while f"down_blocks.{level}.resnets.{resnet}.conv1.weight" in names:
            for theirs, ours in RES_BLOCK.items():
                yield f"down_blocks.{level}.resnets.{resnet}.{theirs}", f"input_blocks.{index}.0.{ours}"
            yield f"down_blocks.{level}.attentions.{resnet}", f"input_blocks.{index}.1"
            index, resnet = index + 1, resnet + 1
        if f"down_blocks.{level}.downsamplers.0.conv.weight" in names:
            yield f"down_blocks.{level}.downsamplers.0.conv", f"input_blocks.{index}.0.op"
            index += 1
        level += 1

    zero = 0
    while f"controlnet_down_blocks.{zero}.weight" in names:
        yield f"controlnet_down_blocks.{zero}", f"zero_convs.{zero}.0"
        zero += 1


_FIRST = (("resnets", "conv1.weight"), ("downsamplers", "conv.weight"))
