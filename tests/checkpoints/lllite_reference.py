"""ControlNet-LLLite, independent of our code: files of random weights, and the published formula (kohya-ss/sd-scripts, kohya-ss/ControlNet-LLLite-ComfyUI)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from control_composer.checkpoints.lllite import LLLiteHyperparameters, LLLiteModule, place_of

Shaped = Callable[[str, Tensor], Tensor]


def module(block: str, projection: str = "attn1_to_q", transformer: int = 0, **sizes: int) -> LLLiteModule:
    name = f"lllite_unet_{block}_1_transformer_blocks_{transformer}_{projection}"
    numbers = {"width": 64, "depth": 2, "embedding": 6, "bottleneck": 5} | sizes
    return LLLiteModule(name=name, place=place_of(name), **numbers)


def random_lllite(net: LLLiteHyperparameters, seed: int = 0) -> dict[str, Tensor]:
    """The tensors of such a file, shapes as in the published class (kohya-ss/ControlNet-LLLite-ComfyUI)."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}

    def add(name: str, *shape: int) -> None:
        fan_in = torch.tensor(shape[1:]).prod().item()
        tensors[f"{name}.weight"] = torch.randn(shape, generator=generator) / fan_in**0.5
        tensors[f"{name}.bias"] = torch.randn(shape[0], generator=generator) * 0.1

    for one in net.modules:
        name, half, whole, inner = one.name, one.embedding // 2, one.embedding, one.bottleneck
        ones = (1, 1) if one.convolution else ()
        add(f"{name}.conditioning1.0", half, net.hint_channels, 4, 4)
        if one.depth == 1:
            add(f"{name}.conditioning1.2", whole, half, 2, 2)
        elif one.depth == 2:
            add(f"{name}.conditioning1.2", whole, half, 4, 4)
        else:
            add(f"{name}.conditioning1.2", half, half, 4, 4)
            add(f"{name}.conditioning1.4", whole, half, 2, 2)
        add(f"{name}.down.0", inner, one.width, *ones)
        add(f"{name}.mid.0", inner, inner + whole, *ones)
        add(f"{name}.up.0", one.width, inner, *ones)
    return tensors


def published(
    tensors: dict[str, Tensor], name: str, tokens: Tensor, hint: Tensor, size: tuple[int, int] | None = None
) -> Tensor:
    """What the published module adds to (rows, tokens, width), with its operations in its order, for hints in 0..1.

    `size` of the tokens, where the embedding is of another: sd-webui-controlnet resizes it (scripts/controlnet_lllite.py).
    """
    conv, relu = torch.nn.functional.conv2d, torch.relu

    def layer(key: str) -> tuple[Tensor, Tensor]:
        return tensors[f"{name}.{key}.weight"], tensors[f"{name}.{key}.bias"]

    def linear(x: Tensor, key: str) -> Tensor:
        weight, bias = layer(key)
        return x @ weight.reshape(weight.shape[:2]).T + bias

    keys = [key for key in (f"conditioning1.{n}" for n in (0, 2, 4)) if f"{name}.{key}.weight" in tensors]
    x = hint * 2 - 1
    for key in keys:
        x = conv(x, *layer(key), stride=layer(key)[0].shape[-1])
        x = x if key == keys[-1] else relu(x)
    if size is not None:
        x = torch.nn.functional.interpolate(x, size, mode="nearest-exact")
    x = x.flatten(2).permute(0, 2, 1).repeat(len(tokens) // len(x), 1, 1)
    x = torch.cat([x, relu(linear(tokens, "down.0"))], dim=2)
    return linear(relu(linear(x, "mid.0")), "up.0")


@contextmanager
def added(
    unet: torch.nn.Module, tensors: dict[str, Tensor], hint: Tensor, shaped: Shaped | None = None, **sizes: Any
) -> Iterator[None]:
    """The UNet with the modules of a file before the layers that their names tell, as sd-scripts puts them there: layer(x + module(x)).

    `shaped` changes what a module gives, by its name; `sizes` are the tokens' of those whose embedding has another size.
    """
    layers = {"lllite_unet_" + path.replace(".", "_"): layer for path, layer in unet.named_modules()}
    handles = []
    for name in dict.fromkeys(key.split(".")[0] for key in tensors):

        def before(_: Any, inputs: tuple[Tensor, ...], name: str = name) -> tuple[Tensor, ...]:
            change = published(tensors, name, inputs[0], hint, sizes.get(name))
            return (inputs[0] + (change if shaped is None else shaped(name, change)), *inputs[1:])

        handles.append(layers[name].register_forward_pre_hook(before))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
