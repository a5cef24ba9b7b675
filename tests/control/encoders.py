"""Narrow encoder networks of every class, and what a pass of them reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import comfy.model_management
import torch

from control_composer.control import EncoderNetwork
from control_composer.control.ctrlora import CtrLoraNetwork
from control_composer.control.lite import LiteNetwork
from control_composer.control.network import NetworkInputs
from control_composer.residuals.residuals import Residuals
from control_composer.tests import narrow
from control_composer.training.copy import encoder_of
from control_composer.training.lite import LiteControl

TYPES = 6


def put(module: Any, of: type[EncoderNetwork] = EncoderNetwork, **arguments: Any) -> EncoderNetwork:
    """The network around a module, loaded by the host."""
    network = of.from_module(module, name="test.safetensors", base="SD1", **arguments)
    comfy.model_management.load_models_gpu([network.patcher])
    return network


def lite() -> Any:
    module = LiteControl(encoder_of(narrow.make_model("sd1").model.diffusion_model, 3))
    narrow.fill(module, 1)
    return module.eval().requires_grad_(False)


def union(**changes: Any) -> Any:
    return narrow.make_module("sd1", union_controlnet_num_control_type=TYPES, **changes)


def small_module(**changes: Any) -> Any:
    """For tests that ask nothing of its layers: two levels, attention in the middle alone."""
    levels = {"channel_mult": [1, 1], "num_res_blocks": [1, 1], "transformer_depth": [0, 0]}
    return narrow.make_module("sd1", **levels, **changes)


def small(**changes: Any) -> EncoderNetwork:
    return put(small_module(**changes))


NETWORKS: dict[str, Callable[..., EncoderNetwork]] = {
    "sd1": lambda **changes: put(narrow.make_module("sd1", **changes)),
    "sdxl": lambda **changes: put(narrow.make_module("sdxl", **changes)),
    "union": lambda **changes: replace(put(union(**changes)), union_type=3),
    "pooling": lambda **changes: put(narrow.make_module("sd1", **changes), pooling=True),
    "ctrlora": lambda **changes: put(narrow.make_module("sd1", **changes), CtrLoraNetwork),
    "lite": lambda **changes: put(lite(), LiteNetwork),
}


def inputs_of(
    network: EncoderNetwork,
    seed: int = 0,
    rows: int = 2,
    size: tuple[int, int] = (5, 8),
    hints: int = 1,
    types: tuple[tuple[int, ...], ...] = (),
    device: str | torch.device = "cpu",
) -> NetworkInputs:
    """Random numbers of the network's widths, in its dtype but for the timesteps."""
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(device, network.dtype)

    return NetworkInputs(
        numbers(rows, 4, *size),
        numbers(hints, network.model_channels, *size),
        (999 * torch.rand(rows, generator=generator)).to(device),
        numbers(rows, 7, network.context_dim or 24),
        None if network.adm_channels is None else numbers(rows, network.adm_channels),
        types or (network.told,) * rows,
    )


def equal(found: Residuals, expected: Residuals) -> bool:
    """Bit for bit, block by block, with the strides that each tensor has."""
    pairs = list(zip(found.items(), expected.items(), strict=True))
    return all(
        a[:2] == b[:2] and torch.equal(a[2], b[2]) and a[2].dtype == b[2].dtype and a[2].stride() == b[2].stride()
        for a, b in pairs
        if a[2] is not None and b[2] is not None
    )
