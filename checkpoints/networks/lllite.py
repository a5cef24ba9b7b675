"""ControlNet-LLLite's modules (kohya-ss/sd-scripts, networks/control_net_lllite.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, ModuleDict, ReLU, Sequential
from torch.nn.functional import pad, relu

from ..lllite import LLLiteHyperparameters, LLLiteModule


class LLLite(Module):
    """All modules of a file, in the order in which the UNet passes their places."""

    def __init__(self, net: LLLiteHyperparameters, operations: Any, **factory: Any) -> None:
        super().__init__()
        self.net = net
        self.places = ModuleDict(
            {one.name: Bottleneck(one, net.hint_channels, operations, **factory) for one in net.modules}
        )

    def embed(self, hint_bchw: Tensor) -> tuple[Tensor, ...]:
        """Hints (N, channels, pixels) in 0..1 -> for each module (N, height, width of its tokens, bottleneck)."""
        scaled = hint_bchw * 2 - 1
        padded: dict[int, Tensor] = {}
        found = []
        for shape, place in zip(self.net.modules, self.places.values(), strict=True):
            if shape.stride not in padded:
                padded[shape.stride] = pad_to(scaled, shape.stride)
            assert isinstance(place, Bottleneck)
            found.append(place.embed(padded[shape.stride]))
        return tuple(found)


class Bottleneck(Module):
    """One module: (rows, tokens, width) -> what is to be added to them.

    The published network feeds `mid` the hint's embedding beside the tokens. Its part for the hint, `mid_hint`, is linear and does not depend on the
    timestep, so it belongs to the embedding here: the sum is the same.
    """

    def __init__(self, shape: LLLiteModule, hint_channels: int, operations: Any, **factory: Any) -> None:
        super().__init__()
        half, whole, inner = shape.embedding // 2, shape.embedding, shape.bottleneck

        def conv(before: int, after: int, kernel: int) -> Any:
            return operations.Conv2d(before, after, kernel, kernel, **factory)

        layers: list[Any] = [conv(hint_channels, half, 4), ReLU(inplace=True)]
        if shape.depth == 3:
            layers += [conv(half, half, 4), ReLU(inplace=True)]
        layers.append(conv(half, whole, 4 if shape.depth == 2 else 2))
        self.conditioning1 = Sequential(*layers)
        self.mid_hint = operations.Linear(whole, inner, bias=False, **factory)
        self.down = operations.Linear(shape.width, inner, **factory)
        self.mid = operations.Linear(inner, inner, **factory)
        self.up = operations.Linear(inner, shape.width, **factory)

    def embed(self, hint_bchw: Tensor) -> Tensor:
        embedding: Tensor = self.mid_hint(self.conditioning1(hint_bchw).movedim(1, -1))
        return embedding

    def forward(self, tokens: Tensor, hint_embedding: Tensor) -> Tensor:
        """`hint_embedding` (rows or 1, tokens, bottleneck)."""
        inner = self.mid(relu(self.down(tokens), inplace=True)) + hint_embedding
        change: Tensor = self.up(relu(inner, inplace=True))
        return change


def pad_to(hint_bchw: Tensor, stride: int) -> Tensor:
    """With as much of its lower and right edge repeated as the last token lacks: the UNet rounds odd sizes up where convolutions round down."""
    height, width = hint_bchw.shape[-2:]
    return pad(hint_bchw, (0, -width % stride, 0, -height % stride), mode="replicate")


def from_file(net: LLLiteHyperparameters, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file under the names of `LLLite`, with `mid` in its two parts. Nothing but these is copied."""
    weights = {}
    for module in net.modules:
        name, ours = module.name, f"places.{module.name}"
        for key in ("down", "mid", "up"):
            weight = tensors[f"{name}.{key}.0.weight"].flatten(1)
            if key == "mid":
                weights[f"{ours}.mid_hint.weight"] = weight[:, : module.embedding].clone(
                    memory_format=torch.contiguous_format
                )
                weight = weight[:, module.embedding :].clone(memory_format=torch.contiguous_format)
            weights[f"{ours}.{key}.weight"] = weight
            weights[f"{ours}.{key}.bias"] = tensors[f"{name}.{key}.0.bias"]
        for layer in range(0, 5 if module.depth == 3 else 3, 2):
            for kind in ("weight", "bias"):
                weights[f"{ours}.conditioning1.{layer}.{kind}"] = tensors[f"{name}.conditioning1.{layer}.{kind}"]
    return weights
