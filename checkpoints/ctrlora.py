"""CtrLoRA as numbers: a base network and low-rank differences to it (arXiv 2410.09400; xyfJASON/ctrlora, cldm/lora.py and scripts/tool_extract_weights.py).

The network is a ControlNet's encoder without hint network, reading the hint's latent where a ControlNet reads the sampled one. Its LoRA file holds
a difference for every linear layer, and zero convolutions and the norms of its transformers in full, in place of the base's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .encoder import EncoderHyperparameters, Shape, expected_shapes
from .encoder_shapes import MissingNameError, read_encoder

UP, DOWN = ".lora_layer.up.weight", ".lora_layer.down.weight"
MARK = ".lora_layer."
HINT_CHANNELS = 3
LATENT_CHANNELS = 4
FIRST = "input_blocks.0.0.weight"
# What a ControlNet has besides, of which hyperparameters are read.
HINT: dict[str, Shape] = {"input_hint_block.0.weight": (16, HINT_CHANNELS, 3, 3)}


@dataclass(frozen=True)
class CtrLoraHyperparameters(EncoderHyperparameters):
    """The encoder, whose `hint_channels` are those of the picture in front of the VAE."""

    rank: int
    """Of the file's low-rank differences; 0 where it has none."""

    @property
    def encoder(self) -> EncoderHyperparameters:
        """The same without rank."""
        return EncoderHyperparameters(
            **{field.name: getattr(self, field.name) for field in fields(EncoderHyperparameters)}
        )


def base_shapes(net: EncoderHyperparameters) -> dict[str, Shape]:
    """Name -> shape of every tensor of the network, without differences."""
    return {name: shape for name, shape in expected_shapes(net).items() if not name.startswith("input_hint_block.")}


def is_replaced(name: str) -> bool:
    """Whether a LoRA file holds this tensor of the network in full."""
    return name.startswith(("zero_convs.", "middle_block_out.")) or "norm" in name


def difference_shapes(net: EncoderHyperparameters, rank: int) -> dict[str, Shape]:
    """Name -> shape of every low-rank difference."""
    shapes: dict[str, Shape] = {}
    for name, shape in base_shapes(net).items():
        if len(shape) == 2 and not is_replaced(name):
            module = name.removesuffix(".weight")
            shapes |= {module + DOWN: (rank, shape[1]), module + UP: (shape[0], rank)}
    return shapes


def lora_shapes(net: EncoderHyperparameters, rank: int) -> dict[str, Shape]:
    """Name -> shape of every tensor of a LoRA file."""
    replaced = {name: shape for name, shape in base_shapes(net).items() if is_replaced(name)}
    return replaced | difference_shapes(net, rank)


def read_base(shapes: Mapping[str, Shape]) -> CtrLoraHyperparameters:
    """The hyperparameters that a base's shapes tell. Raises MissingNameError."""
    net = read_encoder({**shapes, **HINT})
    return _of(net, _rank(shapes) if any(MARK in name for name in shapes) else 0)


def read_lora(shapes: Mapping[str, Shape]) -> CtrLoraHyperparameters:
    """The hyperparameters of the base that a LoRA file was trained on. Raises MissingNameError.

    Its file has no convolutions, which follow: a block with a linear layer for the time is a ResBlock, one without halves the latent.
    """
    merged = dict(shapes)
    for name in shapes:
        if name.endswith(DOWN):
            module = name.removesuffix(DOWN)
            merged[f"{module}.weight"] = (_at(shapes, module + UP, 2)[0], _at(shapes, name, 2)[1])
        elif name.endswith(".transformer_blocks.0.norm1.weight"):
            attention = name.removesuffix(".transformer_blocks.0.norm1.weight")
            if f"{attention}.proj_in{DOWN}" not in shapes:
                width = _at(shapes, f"{attention}.norm.weight", 1)[0]
                merged[f"{attention}.proj_in.weight"] = (width, width, 1, 1)
    merged[FIRST] = (_at(shapes, "zero_convs.0.0.weight", 4)[0], LATENT_CHANNELS, 3, 3)
    index = 1
    while f"zero_convs.{index}.0.weight" in shapes:
        channels = _at(shapes, f"zero_convs.{index}.0.weight", 4)[0]
        of_time = f"input_blocks.{index}.0.emb_layers.1{DOWN}" in shapes
        layer = "out_layers.3" if of_time else "op"
        merged[f"input_blocks.{index}.0.{layer}.weight"] = (channels, channels, 3, 3)
        index += 1
    return _of(read_encoder({**merged, **HINT}), _rank(shapes))


def merged_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's weights with their differences, in new tensors, in single precision; those without a difference as they are.

    A difference is up · down and has no scale: the published networks have no `network_alpha`.
    """
    merged = {name: tensor for name, tensor in tensors.items() if MARK not in name}
    for name, down in tensors.items():
        if name.endswith(DOWN):
            module = name.removesuffix(DOWN)
            weight, up = tensors[f"{module}.weight"], tensors[module + UP]
            merged[f"{module}.weight"] = torch.addmm(weight.float(), up.float(), down.float())
    return merged


def _of(net: EncoderHyperparameters, rank: int) -> CtrLoraHyperparameters:
    # No such network reads a pooled vector; one that has the tensors for it has them too many.
    return CtrLoraHyperparameters(**{**vars(net), "adm_in_channels": None}, rank=rank)


def _rank(shapes: Mapping[str, Shape]) -> int:
    first = next((name for name in shapes if name.endswith(DOWN)), f"time_embed.0{DOWN}")
    return _at(shapes, first, 2)[0]


def _at(shapes: Mapping[str, Shape], name: str, dimensions: int) -> Shape:
    shape = shapes.get(name)
    if shape is None or len(shape) != dimensions:
        raise MissingNameError(name)
    return shape
