"""The cases of all families: what the tests of families ask the same questions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import comfy.cldm.cldm
import comfy.controlnet
import comfy.ops
import comfy.supported_models
import comfy.t2i_adapter.adapter
import torch

from control_composer.control import Control
from control_composer.nodes.load import load_source
from control_composer.tests import narrow
from control_composer.tests.control.case import Case, made, save
from control_composer.tests.control.case_controlnext import controlnext
from control_composer.tests.control.case_ctrlora import ctrlora
from control_composer.tests.control.case_lllite import lllite
from control_composer.tests.control.case_reference import reference
from control_composer.tests.control.case_sparsectrl import sparse
from control_composer.tests.control.case_union import several_types
from control_composer.tests.control.case_xs import xs


def adapter(kind: str, cin: int) -> Callable[[Path], Case]:
    def make(folder: Path) -> Case:
        network = comfy.t2i_adapter.adapter.Adapter(
            channels=[32, 64, 128, 128], nums_rb=2, cin=cin, ksize=1, sk=True, use_conv=False, xl=kind == "sdxl"
        )
        narrow.fill(network, 4)
        path = save(folder, dict(network.state_dict()), "adapter.safetensors")
        model = narrow.make_model(kind)
        source, description = load_source(path, model, "auto")
        return Case(kind, model, Control.unbound(source), comfy.controlnet.load_controlnet(str(path)), description)

    return make


UNION = narrow.SDXL | {
    "model_channels": 320,  # the width of the type embeddings
    "num_res_blocks": [1, 1],
    "transformer_depth": [0, 1],
    "transformer_depth_output": [0, 0, 1, 1],
    "transformer_depth_middle": 1,
    "channel_mult": [1, 1],
    "num_head_channels": 64,
}


class WideSDXL(comfy.supported_models.SDXL):
    unet_config: ClassVar = UNION
    unet_extra_config: ClassVar = {}


def union(folder: Path) -> Case:
    network = comfy.cldm.cldm.ControlNet(
        hint_channels=3,
        dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
        **UNION | {"union_controlnet_num_control_type": 6},
    )
    narrow.fill(network, 7)
    path = save(folder, dict(network.state_dict()), "union.safetensors", {"num_head_channels": "64"})
    model = made(WideSDXL)
    source, description = load_source(path, model, "auto", "depth")
    # The stock loader knows union files at their real width alone; this is what it makes of them.
    stock = narrow.make_stock(network.eval())
    stock.set_extra_arg("control_type", [1])
    return Case("sdxl", model, Control.unbound(source), stock, description)


def lora_weights(kind: str, rank: int = 4, seed: int = 9) -> dict[str, torch.Tensor]:
    """A Control-LoRA of the narrow model: differences of low rank, norms and biases in full, and its own hint network."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {"lora_controlnet": torch.zeros(1)}
    for name, weight in narrow.make_module(kind).state_dict().items():
        if weight.ndim == 1 or name.startswith(("zero_convs", "input_hint_block", "middle_block_out")):
            tensors[name] = weight
            continue
        module, rest = name.removesuffix(".weight"), weight[0].numel()
        tensors[f"{module}.down"] = torch.randn(rank, *weight.shape[1:], generator=generator) / rest**0.5
        up = torch.randn(weight.shape[0], rank, generator=generator) * 0.3
        tensors[f"{module}.up"] = up.view(*up.shape, 1, 1) if weight.ndim == 4 else up
    return tensors


def control_lora(kind: str) -> Callable[[Path], Case]:
    def make(folder: Path) -> Case:
        path = save(folder, lora_weights(kind), "lora.safetensors")
        model = narrow.make_model(kind)
        source, description = load_source(path, model, "auto")
        return Case(kind, model, Control.unbound(source), comfy.controlnet.load_controlnet(str(path)), description)

    return make


SIXTY_FOUR = {name: value for name, value in narrow.SD1.items() if name != "num_heads"} | {
    "model_channels": 64,  # the stock loader splits what it does not know into heads of 64
    "num_head_channels": 64,
    "channel_mult": [1, 2, 2, 2],
}


class WideSD1(comfy.supported_models.SD15):
    unet_config: ClassVar = SIXTY_FOUR
    unet_extra_config: ClassVar = {}


def difference_file(folder: Path) -> Path:
    network = comfy.cldm.cldm.ControlNet(
        hint_channels=3, dtype=torch.float32, operations=comfy.ops.disable_weight_init, **SIXTY_FOUR
    )
    narrow.fill(network, 8)
    own = ("zero_convs", "input_hint_block", "middle_block_out")
    small = {name: x if name.startswith(own) else 0.2 * x for name, x in network.state_dict().items()}
    tensors = {f"control_model.{name}": x for name, x in small.items()} | {"difference": torch.zeros(1)}
    return save(folder, tensors, "difference.safetensors")


def with_lora(model: Any, name: str = "input_blocks.1.0.in_layers.2.weight") -> Any:
    """The model with a patch on one weight, as Load LoRA makes it."""
    weight = model.model.diffusion_model.state_dict()[name]
    patched = model.clone()
    change = torch.randn(weight.shape, generator=torch.Generator().manual_seed(6)) * float(weight.std())
    patched.add_patches({f"diffusion_model.{name}": (change,)}, 0.5)
    return patched


def difference(folder: Path) -> Case:
    path, model = difference_file(folder), with_lora(made(WideSD1))
    source, description = load_source(path, model, "auto")
    stock = comfy.controlnet.load_controlnet(str(path), model)
    return Case("sd1", model, Control.unbound(source), stock, description)


CASES: dict[str, Callable[[Path], Case]] = {
    "difference": difference,
    "Control-LoRA": control_lora("sd1"),
    "Control-LoRA XL": control_lora("sdxl"),
    "Union": union,
    "Union, several types": several_types(union),
    "CtrLoRA": ctrlora,
    "SparseCtrl, RGB": sparse(rgb=True),
    "SparseCtrl, scribble": sparse(rgb=False),
    "T2I-Adapter": adapter("sd1", 192),
    "T2I-Adapter, gray": adapter("sd1", 64),
    "T2I-Adapter XL": adapter("sdxl", 768),
}
"""Families that give residuals."""

INSIDE: dict[str, Callable[[Path], Case]] = {
    "LLLite": lllite("sd1"),
    "LLLite XL": lllite("sdxl"),
    "ControlNeXt": controlnext("sd1", "August"),
    "ControlNeXt XL": controlnext("sdxl", "August", connected=False),
    "ControlNeXt, in the middle": controlnext("sd1", "SD1.5"),
    "ControlNet-XS": xs("sd1"),
    "ControlNet-XS XL": xs("sdxl"),
    "reference": reference("sd1", "attention + adain"),
    "reference XL": reference("sdxl", "attention"),
}
"""Families that act inside of the UNet."""
